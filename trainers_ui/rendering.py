"""Message text (Markdown, code, formulas) → HTML that is safe to show. nh3 has the last word."""

import html
import re
import time
from collections.abc import Iterable, Iterator
from functools import lru_cache

import nh3
import pygments
from django.utils.safestring import SafeString
from markdown_it import MarkdownIt
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.token import STANDARD_TYPES

from trainers_ui import mathematics

LONGEST_MARKDOWN = 60_000
"""Characters; a longer text is shown as it is, with its line breaks."""

LONGEST_KEPT = 20_000
"""Characters of a text whose HTML is kept in memory for the next time."""

LONGEST_HIGHLIGHT = 8_000
"""Characters of one code block; a longer one is shown without colours."""

HIGHLIGHT_SECONDS = 0.1
"""Several lexers are quadratic on unlucky code, so that the length alone does not bound them."""

LANGUAGES = frozenset(
    "bash c clojure cpp csharp css dart diff docker elixir erlang go graphql haskell html java"  # noqa: SIM905
    " javascript js json jsx julia kotlin latex lua markdown nginx objective-c perl php powershell"
    " py pycon python python3 r rb rs ruby rust scala scss sh shell sql swift toml ts tsx typescript vue xml"
    " yaml yml zsh c++ c# tex cs".split()
)

DEEPEST = 30
"""Levels of lists and quotations, two for each list. The parser would leave out what is deeper, so that such a text
is shown as it is."""

_TAGS = frozenset(
    "a blockquote br code del div em h3 h4 h5 h6 hr li ol p pre s span strong table tbody td th thead tr ul".split()  # noqa: SIM905
)
_CODE_CLASSES = frozenset(STANDARD_TYPES.values()) - {""}
_ATTRIBUTES = {
    "a": {"href", "target"},
    "ol": {"start"},
    "pre": {"data-language"},
    "td": {"data-align"},
    "th": {"data-align"},
    **{element: set(mathematics.ATTRIBUTES) for element in mathematics.ELEMENTS},
}
_CLASSES = {"span": _CODE_CLASSES | {"wide"}, "div": {"wide", "plain"}, "code": {"block"}}
_SCHEMES = {"http", "https", "mailto"}


def render(text: str) -> SafeString:
    """HTML of a message. Never raises; the cost grows with the length of the text only.

    Headings start at `h3`, below the page's own. Images are links: nothing is loaded from elsewhere.
    """
    return _kept(text) if len(text) <= LONGEST_KEPT else _rendered(text)


@lru_cache(maxsize=256)
def _kept(text: str) -> SafeString:
    # A conversation is shown again after every turn, guidelines on every task.
    return _rendered(text)


def _rendered(text: str) -> SafeString:
    if len(text) > LONGEST_MARKDOWN:
        return SafeString(_plain(text))
    parser = _WITHOUT_FORMULAS if mathematics.too_many(text) else _WITH_FORMULAS
    tokens = parser.parse(text)
    if any(token.level >= DEEPEST - 1 for token in tokens):
        return SafeString(_plain(text))
    return SafeString(_clean(parser.renderer.render(tokens, parser.options, {})))


def _plain(text: str) -> str:
    return _clean(f'<div class="plain">{html.escape(text)}</div>')


def _clean(markup: str) -> str:
    return nh3.clean(
        markup,
        tags=set(_TAGS | mathematics.ELEMENTS),
        attributes=_ATTRIBUTES,
        allowed_classes=_CLASSES,
        url_schemes=_SCHEMES,
        link_rel="noopener noreferrer nofollow",
    )


def _parser(*, formulas: bool) -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "breaks": True, "linkify": False, "maxNesting": DEEPEST})
    parser.enable(["table", "strikethrough"])
    parser.validateLink = _elsewhere
    if formulas:
        mathematics.formulas(parser)
    for kind, rule in _RULES.items():
        parser.add_render_rule(kind, rule)
    return parser


def _elsewhere(url: str) -> bool:
    """Links lead out of this site or nowhere: a relative one would act inside it."""
    return re.match(r"(https?|mailto):", url, re.IGNORECASE) is not None


def _link_open(renderer, tokens, index, options, env) -> str:
    return f'<a href="{html.escape(str(tokens[index].attrGet("href")))}" target="_blank">'


def _image(renderer, tokens, index, options, env) -> str:
    token = tokens[index]
    source = html.escape(str(token.attrGet("src")))
    name = html.escape(token.content) or source
    # Inside a link the picture is its text: links do not nest.
    inside = sum(token.nesting for token in tokens[:index] if token.type.startswith("link_"))
    return f"[{name}]" if inside else f'<a href="{source}" target="_blank">[{name}]</a>'


def _heading_open(renderer, tokens, index, options, env) -> str:
    return f"<h{_level(tokens[index].tag)}>"


def _heading_close(renderer, tokens, index, options, env) -> str:
    return f"</h{_level(tokens[index].tag)}>\n"


def _level(tag: str) -> int:
    return min(6, int(tag[1]) + 2)


def _table_open(renderer, tokens, index, options, env) -> str:
    return '<div class="wide"><table>\n'


def _table_close(renderer, tokens, index, options, env) -> str:
    return "</table></div>\n"


def _cell_open(renderer, tokens, index, options, env) -> str:
    # The parser aligns by a style attribute, which the policy of the pages forbids.
    side = str(tokens[index].attrGet("style") or "").removeprefix("text-align:")
    return f'<{tokens[index].tag} data-align="{side}">' if side else f"<{tokens[index].tag}>"


def _fence(renderer, tokens, index, options, env) -> str:
    token = tokens[index]
    language = token.info.strip().split(maxsplit=1)[0] if token.info.strip() else ""
    label = f' data-language="{html.escape(language[:30])}"' if language else ""
    return f'<pre{label}><code class="block">{_code(token.content, language)}</code></pre>\n'


def _code(source: str, language: str) -> str:
    if language.lower() not in LANGUAGES or len(source) > LONGEST_HIGHLIGHT:
        return html.escape(source)
    lexer = get_lexer_by_name(language, stripnl=False)
    try:
        return pygments.format(_in_time(lexer.get_tokens(source)), _FORMATTER)
    except TimeoutError:
        return html.escape(source)


def _in_time(tokens: Iterable) -> Iterator:
    until = time.monotonic() + HIGHLIGHT_SECONDS
    for token in tokens:
        if time.monotonic() > until:
            raise TimeoutError
        yield token


_FORMATTER = HtmlFormatter(nowrap=True)
_RULES = {
    "link_open": _link_open,
    "image": _image,
    "heading_open": _heading_open,
    "heading_close": _heading_close,
    "table_open": _table_open,
    "table_close": _table_close,
    "th_open": _cell_open,
    "td_open": _cell_open,
    "fence": _fence,
    "code_block": _fence,
}
_WITH_FORMULAS = _parser(formulas=True)
_WITHOUT_FORMULAS = _parser(formulas=False)
