r"""Formulas in model text: `$…$`, `$$…$$`, `\(…\)` and `\[…\]` become MathML, or stay text where that fails."""

import html
import re
from xml.etree.ElementTree import Element, tostring

from latex2mathml.converter import convert_to_element
from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline
from mdit_py_plugins.dollarmath import dollarmath_plugin

LONGEST_FORMULA = 2_000
DEEPEST_FORMULA = 24
"""latex2mathml recurses on every brace, script and \\left; deeper input is shown as text."""

MOST_FORMULAS = 200
"""Beyond this many delimiters a text is rendered without mathematics: looking for pairs is quadratic."""

# A macro can double itself at each step, so a short formula could fill the memory.
DEFINES_MACRO = re.compile(r"\\(?:new|renew|provide)command|\\[egx]?def\b|\\let\b")

ELEMENTS = frozenset(
    "math menclose mfrac mi mn mo mover mpadded mphantom mroot mrow mspace msqrt mstyle msub msubsup msup"  # noqa: SIM905
    " mtable mtd mtext mtr munder munderover".split()
)
_LENGTHS = frozenset("width height depth voffset lspace rspace linethickness minsize maxsize".split())  # noqa: SIM905
ATTRIBUTES = _LENGTHS | frozenset(
    "accent columnalign columnlines columnspacing display displaystyle fence form largeop mathvariant"  # noqa: SIM905
    " movablelimits notation rowlines rowspacing scriptlevel separator stretchy symmetric".split()
)
# A formula may not grow over its neighbours: lengths of up to two digits only.
_SHORT = re.compile(r"[+-]?\d{0,2}(\.\d{1,4})?(em|ex|px|pt|mu|%)?")


def mathml(latex: str, *, display: bool) -> str | None:
    """MathML of one formula, escaped; None where it is too long, too deep, defines macros or does not parse.

    Text from the formula cannot become markup: the tree is serialised here, because the library's own
    serialiser undoes the escaping of `\\text{<img …>}`.
    """
    if len(latex) > LONGEST_FORMULA or _depth(latex) > DEEPEST_FORMULA or DEFINES_MACRO.search(latex):
        return None
    try:
        tree = convert_to_element(latex, display="block" if display else "inline")
    except Exception:  # the parser raises many kinds, RecursionError and StopIteration among them
        return None
    for element in tree.iter():
        _harmless(element)
    tree.set("xmlns", "http://www.w3.org/1998/Math/MathML")
    return tostring(tree, encoding="unicode")


def _harmless(element: Element) -> None:
    if element.tag not in ELEMENTS:
        element.tag = "mrow"
    # The library writes symbols as character references into the text.
    element.text = html.unescape(element.text or "") or None
    element.tail = html.unescape(element.tail or "") or None
    for name, value in list(element.attrib.items()):
        if name not in ATTRIBUTES or (name in _LENGTHS and not _SHORT.fullmatch(value)):
            del element.attrib[name]


def _depth(latex: str) -> int:
    """How deep the formula nests: braces, environments and \\left, and scripts that hang on scripts."""
    deepest = depth = chain = 0
    for token in re.finditer(r"\\\\|\\[{}]|\\left\b|\\begin\b|\\right\b|\\end\b|\\[A-Za-z]+|[{}^_\[]|[^\s]", latex):
        found = token.group()
        if found in ("{", "\\left", "\\begin"):
            depth += 1
        elif found in ("}", "\\right", "\\end"):
            depth -= 1
        # `\sqrt\sqrt\sqrt…` and `^^^…` nest without a brace.
        chain = chain + 1 if found in "^_" or (found[0] == "\\" and found[1:].isalpha()) else 0
        deepest = max(deepest, depth + chain)
    return deepest


def formulas(markdown: MarkdownIt) -> None:
    """Add the four ways to write a formula to a Markdown parser."""
    dollarmath_plugin(markdown, allow_labels=False, allow_space=False, allow_digits=False, double_inline=True)
    markdown.inline.ruler.before("escape", "bracket_formula", _bracket_inline)
    markdown.block.ruler.before(
        "fence", "bracket_formula_block", _bracket_block, {"alt": ["paragraph", "blockquote", "list"]}
    )
    for kind, display in (("math_inline", False), ("math_inline_double", True), ("math_block", True)):
        markdown.add_render_rule(kind, _rule(display))


def too_many(text: str) -> bool:
    """Whether finding the formulas of this text could take longer than its length allows."""
    return text.count("$") + text.count("\\(") + text.count("\\[") > 2 * MOST_FORMULAS


def _rule(display: bool):
    def rendered(renderer, tokens, index, options, env) -> str:
        token = tokens[index]
        source = token.content.strip()
        shown = mathml(source, display=display)
        if shown is None:
            mark = "$$" if display else "$"
            return f"<code>{html.escape(mark + source + mark)}</code>"
        # A formula that is wider than its column scrolls by itself. A span, because it may stand in a paragraph.
        return f'<span class="wide">{shown}</span>' if display else shown

    return rendered


def _bracket_inline(state: StateInline, silent: bool) -> bool:
    opening = state.src[state.pos : state.pos + 2]
    if opening not in ("\\(", "\\["):
        return False
    closing = "\\)" if opening == "\\(" else "\\]"
    end = state.src.find(closing, state.pos + 2, state.pos + 2 + LONGEST_FORMULA)
    content = state.src[state.pos + 2 : end]
    if end < 0 or not content.strip():
        return False
    if not silent:
        kind = "math_inline" if opening == "\\(" else "math_inline_double"
        state.push(kind, "math", 0).content = content
    state.pos = end + 2
    return True


def _bracket_block(state: StateBlock, start: int, last: int, silent: bool) -> bool:
    r"""A formula between a line that opens with `\[` and one that ends with `\]`."""
    first = state.src[state.bMarks[start] + state.tShift[start] : state.eMarks[start]]
    if not first.startswith("\\["):
        return False
    lines = []
    for line in range(start, last):
        # A line that leaves the quotation or list item ends the search.
        if line > start and not state.isEmpty(line) and state.sCount[line] < state.blkIndent:
            return False
        text = state.src[state.bMarks[line] + state.tShift[line] : state.eMarks[line]].strip()
        lines.append(text)
        if text.endswith("\\]"):
            break
        if len(lines) > 60:
            return False
    else:
        return False
    content = "\n".join(lines)[2:-2]
    if not content.strip() or "\\]" in content:
        return False
    if not silent:
        token = state.push("math_block", "math", 0)
        token.block = True
        token.content = content
        token.map = [start, line + 1]
    state.line = line + 1
    return True
