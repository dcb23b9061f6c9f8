"""Markdown, code and formulas of message text, and texts that mean harm."""

import time
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers_ui import mathematics, rendering
from trainers_ui.rendering import render

TAGS = rendering._TAGS | mathematics.ELEMENTS
ATTRIBUTES = {"href", "target", "rel", "start", "class", "data-language", "data-align"} | mathematics.ATTRIBUTES


class Seen(HTMLParser):
    """What a browser would find: elements, attributes and text."""

    def __init__(self, markup: str):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.links, self.text = set(), set(), [], ""
        self.feed(markup)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links += [value for name, value in attrs if name == "href"]

    def handle_data(self, data):
        self.text += data


def harmless(markup: str) -> Seen:
    seen = Seen(markup)
    assert seen.tags <= TAGS
    assert seen.attributes <= ATTRIBUTES
    assert all(link.lower().startswith(("http:", "https:", "mailto:")) for link in seen.links)
    return seen


def test_markdown():
    shown = render("# Bread\n\nLet it *rise* for **five** hours.\n\n3. Shape\n4. Bake\n\n> Done\n\n~~old~~")

    assert "<h3>Bread</h3>" in shown
    assert "<em>rise</em>" in shown
    assert "<strong>five</strong>" in shown
    assert '<ol start="3">' in shown
    assert "<blockquote>" in shown
    assert "<s>old</s>" in shown


def test_a_line_break_stays_one():
    assert "one<br>" in render("one\ntwo")


def test_tables_scroll_by_themselves_and_align_without_style():
    shown = render("| a | b |\n|---|--:|\n| 1 | 2 |")

    assert '<div class="wide"><table>' in shown
    assert '<td data-align="right">2</td>' in shown
    assert "style" not in shown


def test_code_is_highlighted_by_classes():
    shown = render("```python\ndef f():\n    return '<b>'\n```")

    assert 'data-language="python"' in shown
    assert '<span class="k">def</span>' in shown
    assert "&lt;b&gt;" in shown


@pytest.mark.parametrize("language", ["", "nosuchlanguage", '"><script>', "python onload=x"])
def test_code_in_another_language_is_plain(language):
    seen = harmless(render(f"```{language}\nif 1 < 2:\n```"))

    assert "if 1 < 2:" in seen.text


@pytest.mark.parametrize(
    ("text", "display"),
    [
        ("$a^2$", "inline"),
        (r"\(a^2\)", "inline"),
        ("$$\na^2\n$$", "block"),
        ("see $$a^2$$ there", "block"),
        ("\\[\na^2\n\\]", "block"),
        (r"so \[a^2\] holds", "block"),
        ("- item\n\n  \\[\n  a^2\n  \\]\n", "block"),
    ],
)
def test_formulas(text, display):
    shown = render(text)

    assert f'<math display="{display}">' in shown
    assert "<msup><mi>a</mi><mn>2</mn></msup>" in shown


def test_prices_are_no_formulas():
    assert render("It costs $5 and then $10.") == "<p>It costs $5 and then $10.</p>\n"


def test_brackets_in_code_are_no_formulas():
    assert "<math" not in render("`\\(a\\)` and\n\n```\n\\[\nb\n\\]\n```")


@pytest.mark.parametrize(
    "formula",
    [
        r"\left(x",
        r"a_b_c",
        "{" * 2000 + "}" * 2000,
        r"\sqrt" * 900 + "x",
        "^" * 300,
        "a" * 5000,
        r"\newcommand{\a}{\b\b}\a",
        r"\def\a{\a\a}\a",
    ],
)
def test_a_formula_that_fails_is_text(formula):
    seen = harmless(render(f"before ${formula}$ after"))

    assert "math" not in seen.tags
    assert formula in seen.text


def test_a_formula_cannot_grow_over_the_page():
    shown = render(r"$\rule{9999em}{9999em}\hspace{88888px}x$")

    assert "9999" not in shown
    assert "88888" not in shown


HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg/onload=alert(1)>",
    '<a href="javascript:alert(1)">x</a>',
    "<style>*{display:none}</style>",
    "<iframe src=//evil></iframe>",
    "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=1 onerror=alert(1)&gt;'>",
    "<form action=/out><button>x</button></form>",
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt:alert(1))",
    "[x](&#106;avascript:alert(1))",
    "[x](data:text/html,<script>alert(1)</script>)",
    "[x](vbscript:x)",
    "[x](/accounts/logout/)",
    "[x](//evil.example)",
    "[x](\x01javascript:alert(1))",
    "<javascript:alert(1)>",
    "![x](javascript:alert(1))",
    '![x](http://a/"onerror=alert(1))',
    '[x](http://a "onmouseover=alert(1)")',
    '[a]: http://b "c"\n\n[a]',
    r"$\text{<img src=x onerror=alert(1)>}$",
    r"$\href{javascript:alert(1)}{x}$",
    r"$\href{http://evil.example}{x}$",
    r"$\text{</mtext></math><script>alert(1)</script>}$",
    r"$\text{&lt;script&gt;alert(1)&lt;/script&gt;}$",
    r"$\style{position:fixed}{x}$",
    r"$\class{go}{x}$",
    r"$\color{red;background:url(http://evil)}{x}$",
    r"$\unicode{x3c}script\unicode{x3e}$",
    r"$\mathrm{<script>}$",
    "$$\n</math><img src=x onerror=alert(1)>\n$$",
    '```"><script>alert(1)</script>\nx\n```',
    "```html\n<script>alert(1)</script>\n```",
    '| <img src=x onerror=alert(1)> | b |\n|--|--|\n| <script>alert(1)</script> | "onx= |',
    "\u202eevil\u202d \u2066x",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_shown_and_does_nothing(text):
    harmless(render(text))
    harmless(render(f"> - {text}\n>   {text}"))


@given(st.text(alphabet=st.sampled_from(list("<>\"'&;:/\\$`*_[](){}#!|~-=+ \n\tabjx1.")), max_size=300))
@settings(max_examples=300, deadline=None)
def test_any_text_is_harmless(text):
    harmless(render(text))


@given(
    st.lists(
        st.sampled_from(
            r"\text|\href|\left|\right|\frac|\sqrt|\begin{matrix}|\end{matrix}|{|}|^|_|&|\\|<img>|</math>|x|1"  # noqa: SIM905
            r"|$|\color|\unicode|\rule|\mbox|\hbox|\operatorname|\overset|\substack".split("|")
        ),
        max_size=40,
    )
)
@settings(max_examples=300, deadline=None)
def test_any_formula_is_harmless(parts):
    harmless(render("$$" + " ".join(parts) + "$$"))


def test_links_lead_out_and_say_nothing_of_this_site():
    shown = render("[b](https://bread.example/a?b=1&c=2)")

    assert 'href="https://bread.example/a?b=1&amp;c=2"' in shown
    assert 'rel="noopener noreferrer nofollow"' in shown
    assert 'target="_blank"' in shown


def test_a_link_that_leads_nowhere_is_text():
    assert render("[b](/accounts/logout/)") == "<p>[b](/accounts/logout/)</p>\n"


def test_a_picture_is_a_link():
    shown = render("![A loaf](https://bread.example/loaf.png)")

    assert "<img" not in shown
    assert ">[A loaf]</a>" in shown


def test_a_picture_in_a_link_does_not_nest_links():
    assert render("[![A loaf](https://a.example/b.png)](https://c.example)").count("<a ") == 1


@pytest.mark.parametrize(
    "piece",
    [
        "[",
        "![",
        "*a ",
        "_a_",
        "`",
        "a`",
        "$",
        "$a",
        "$$\n",
        "\\(",
        "\\[\n",
        "> ",
        "- a\n",
        "1. ",
        "|a|\n|-|\n",
        "<a ",
        "&",
        "\\",
    ],
)
def test_time_does_not_explode(piece):
    text = piece * (rendering.LONGEST_MARKDOWN // 3 // len(piece))

    start = time.process_time()
    render(text)

    # About a second is measured for the worst of them; the square of the length would take minutes.
    assert time.process_time() - start < 5


def test_a_very_long_text_is_whole_and_plain():
    code = "```python\n" + "x = 1  # *not* markdown\n" * 100_000 + "```"

    shown = render(code)

    assert shown.startswith('<div class="plain">```python')
    assert shown.count("x = 1") == 100_000


def test_long_code_keeps_its_text_without_colours():
    shown = render("```python\n" + "x = 1\n" * 2000 + "```")

    assert shown.count("x = 1") == 2000
    assert "<span" not in shown


def test_code_on_which_a_lexer_is_slow_keeps_its_text(monkeypatch):
    monkeypatch.setattr(rendering, "HIGHLIGHT_SECONDS", -1)

    assert "def f" in render("```python\ndef f(): pass\n```")


@pytest.mark.parametrize("depth", [5, 12, 20, 400])
def test_deep_nesting_loses_no_text(depth):
    quoted = Seen(render(">" * depth + " innermost")).text
    listed = Seen(render("".join("  " * level + f"- level{level}\n" for level in range(depth)))).text

    assert "innermost" in quoted
    assert all(f"level{level}" in listed for level in range(depth))


def test_many_formulas_are_text():
    shown = render("$a$ " * 1000)

    assert "<math" not in shown
    assert shown.count("$a$") == 1000
