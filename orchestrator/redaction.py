"""Remove secrets from texts that are kept or shown where the whole text is not needed.

The one place where this is done. It recognises secrets by their form, so it cannot find a password
that looks like a word; agents' own logs are left as they are.
"""

from __future__ import annotations

import re

__all__ = ["redacted"]

_HIDDEN = "[secret]"
_WORD = r"[A-Za-z0-9_-]"
_FORMS = (
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
    rf"sk-ant-{_WORD}{{20,}}",  # Anthropic
    rf"sk-(?:proj-)?{_WORD}{{20,}}",  # OpenAI
    r"(?:AKIA|ASIA)[A-Z0-9]{16}",  # AWS access key id
    r"gh[pousr]_[A-Za-z0-9]{30,}",  # GitHub
    r"github_pat_[A-Za-z0-9_]{30,}",
    rf"glpat-{_WORD}{{20,}}",  # GitLab
    r"xox[abeoprs]-[A-Za-z0-9-]{10,}",  # Slack
    rf"AIza{_WORD}{{35}}",  # Google
    r"(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{16,}",  # Stripe
    r"npm_[A-Za-z0-9]{36}",
    rf"pypi-{_WORD}{{40,}}",
    r"hf_[A-Za-z0-9]{30,}",  # Hugging Face
    rf"eyJ{_WORD}{{8,4000}}\.eyJ{_WORD}{{8,8000}}\.{_WORD}+",  # a JSON web token
    rf"TASK-[A-Za-z0-9._-]{{1,128}}~[A-Za-z0-9._-]{{1,128}}~{_WORD}{{20,}}",  # an agent's secret
)
# The name is kept, what follows is not.
_NAMED = (
    r"(?P<name>(?i:bearer|basic)\s{1,9})[A-Za-z0-9._~+/=-]{12,}",
    r"(?P<name>(?<![\w+.-])[a-zA-Z][\w+.-]{0,30}://[^\s/@:]*:)[^\s/@]+(?=@)",  # a URL's password
    (
        r"(?P<name>(?<![\w-])(?i:[\w-]{0,40}(?:password|passwd|secret|token|api[_-]?key)[\w-]{0,40})"
        r"[\"']?\s{0,9}[:=]\s{0,9}[\"']?)[^\s\"',;&}]{4,}"
    ),
)
# Each begins at a word's start, or a long word would be searched from each of its characters.
_FORM = re.compile(rf"(?<!{_WORD})(?:{'|'.join(_FORMS)})")
_NAMED_FORMS = tuple(map(re.compile, _NAMED))


def redacted(text: str) -> str:
    """Return a text without what looks like a secret."""
    text = _FORM.sub(_HIDDEN, text)
    for named in _NAMED_FORMS:
        text = named.sub(rf"\g<name>{_HIDDEN}", text)
    return text
