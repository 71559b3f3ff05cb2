"""Output of terminal programs, with the colours and weights that its escape sequences ask for."""

from __future__ import annotations

import re

from markupsafe import Markup, escape
from rich.style import Style
from rich.text import Text

__all__ = ["styled"]

_ESCAPE = "\x1b"
# What rich reads wrongly: names of windows and links, ended or not (it takes the square of their
# number), sequences with numbers that Python refuses to read, and carriage returns (it keeps only
# what follows the last one).
_LEFT_OUT = re.compile("\x1b\\][^\x07\x1b]*(?:\x07|\x1b\\\\)?|\x1b\\[[0-?]{100,}[ -/]*[@-~]?|\r")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f]")


def styled(line: str) -> Markup:
    """Return a line as HTML: the 16 colours of a terminal as classes, other sequences left out."""
    if _ESCAPE not in line:
        return escape(line)
    text = Text.from_ansi(_LEFT_OUT.sub("\0", line))  # not "": the rest must not form a new one
    out, done = [], 0
    for span in text.spans:  # in their order, and none within another
        out.append(escape(_CONTROL.sub("", text.plain[done : span.start])))
        part = escape(_CONTROL.sub("", text.plain[span.start : span.end]))
        names = " ".join(_classes(span.style)) if isinstance(span.style, Style) else ""
        if names and part:
            part = Markup('<span class="{}">{}</span>').format(names, part)
        out.append(part)
        done = span.end
    out.append(escape(_CONTROL.sub("", text.plain[done:])))
    return Markup().join(out)


def _classes(style: Style) -> list[str]:
    found = [name for name, on in (("bold", style.bold), ("faint", style.dim)) if on]
    number = style.color.number if style.color is not None else None
    return [*found, f"ansi-{number % 8}"] if number is not None and number < 16 else found
