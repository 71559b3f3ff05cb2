"""Markdown that agents wrote, as HTML: without raw HTML, images and links that run something."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup, escape

__all__ = ["rendered"]

_MOST = 20_000  # characters
_CELLS = 4000  # of all tables: empty ones are added to the end of each row
_CUT = "\n\n… The rest is left out; `registry-orchestrator handover TASK` prints it."
_HEADING = 4  # the level of the highest one: above it are the page's own


@cache
def _parser(*, tables: bool) -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False}).disable("image")
    if tables:
        parser.enable("table")
    parser.add_render_rule("text", _text)
    return parser


def _text(_: object, tokens: Sequence[Token], at: int, *__: object) -> str:
    return str(escape(tokens[at].content))  # quotes too, as elsewhere on the page


@lru_cache(maxsize=256)
def rendered(text: str) -> Markup:
    """Return a text as HTML; at most its first 20,000 characters, and large tables as text."""
    text = text[:_MOST] + _CUT if len(text) > _MOST else text
    rows = [line.count("|") for line in text.splitlines() if "|" in line]
    parser = _parser(tables=len(rows) * max(rows, default=0) <= _CELLS)
    tokens = parser.parse(text)
    for token in tokens:
        token.attrs.pop("style", None)  # of a cell; the page allows no inline style
        if token.type.startswith("heading"):
            token.tag = f"h{min(6, int(token.tag[1:]) + _HEADING - 1)}"
        for child in token.children or ():
            _quiet(child)
    return Markup(parser.renderer.render(tokens, parser.options, {}))  # noqa: S704  (raw HTML is off)


def _quiet(token: Token) -> None:
    """Let a link tell nobody where it was followed."""
    if token.type == "link_open":
        token.attrSet("rel", "noreferrer nofollow")
