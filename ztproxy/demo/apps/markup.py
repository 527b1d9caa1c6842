"""Turns the wiki's small markup into HTML: headings, lists, code, bold, links. Pure.

Everything is escaped first; only what is recognised afterwards becomes an element.
"""

import re
from collections.abc import Iterator

from markupsafe import Markup, escape

_LINK = re.compile(r"\[([^\]\n]{1,100})\]\((/[a-z/-]{0,80})\)")
_BOLD = re.compile(r"\*\*([^*\n]{1,200})\*\*")
_CODE = re.compile(r"`([^`\n]{1,200})`")


def to_html(text: str) -> Markup:
    """The text as HTML that is safe to put into a page."""
    return Markup("\n").join(_block(lines) for lines in _blocks(text))


def _blocks(text: str) -> Iterator[list[str]]:
    block: list[str] = []
    fenced = False
    for line in text.splitlines():
        if line.startswith("```"):
            if fenced:
                yield ["```", *block]
            elif block:
                yield block
            block, fenced = [], not fenced
        elif fenced or line.strip():
            block.append(line)
        elif block:
            yield block
            block = []
    if block:
        yield ["```", *block] if fenced else block


def _block(lines: list[str]) -> Markup:
    if lines[0] == "```":
        return Markup("<pre>{}</pre>").format("\n".join(lines[1:]))
    if lines[0].startswith("## "):
        rest = _block(lines[1:]) if lines[1:] else Markup("")
        return Markup("<h2>{}</h2>\n{}").format(_inline(lines[0][3:]), rest)
    if all(line.startswith("- ") for line in lines):
        items = Markup("").join(Markup("<li>{}</li>").format(_inline(line[2:])) for line in lines)
        return Markup("<ul>{}</ul>").format(items)
    return Markup("<p>{}</p>").format(_inline(" ".join(lines)))


def _inline(line: str) -> Markup:
    text = str(escape(line))
    text = _LINK.sub(r'<a href="\2">\1</a>', text)
    text = _BOLD.sub(r"<strong>\1</strong>", text)
    return Markup(_CODE.sub(r"<code>\1</code>", text))  # noqa: S704 - escaped above
