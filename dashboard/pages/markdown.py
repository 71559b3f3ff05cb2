"""Markdown that agents wrote, as HTML: without raw HTML, images and links that run something."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup, escape

__all__ = ["rendered"]

_MOST = 20_000  # characters
_HEADING = 4  # the level of the highest one: above it are the page's own


@cache
def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    parser.add_render_rule("text", _text)
    return parser


def _text(_: object, tokens: Sequence[Token], at: int, *__: object) -> str:
    return str(escape(tokens[at].content))  # quotes too, as elsewhere on the page


def rendered(text: str) -> Markup:
    """Return a text as HTML; at most its first 20,000 characters."""
    parser = _parser()
    tokens = parser.parse(text[:_MOST])
    for token in tokens:
        if token.type.startswith("heading"):
            token.tag = f"h{min(6, int(token.tag[1:]) + _HEADING - 1)}"
        for child in token.children or ():
            _quiet(child)
    return Markup(parser.renderer.render(tokens, parser.options, {}))  # noqa: S704  (raw HTML is off)


def _quiet(token: Token) -> None:
    """Let a link tell nobody where it was followed."""
    if token.type == "link_open":
        token.attrSet("rel", "noreferrer nofollow")
