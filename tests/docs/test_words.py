"""What people read uses the terms of docs/glossary.md: words that once had a private meaning here
are gone, and each message and help text is listed in docs/messages.md.
"""

import io
import re
import tokenize

import pytest

from tests.docs import messages

# Words that have no other meaning in this project; the others of their kind need a reader.
PRIVATE = {
    r"\bolder (program|orchestrator|system)": "legacy",
    r"straggler": "late write",
    r"\bmovable\b": "migration source",
    r"\b(mirror|mirrors|mirrored|mirroring)\b": "replicate, replica",
    r"\b(heal|heals|healed|healing)\b": "catch up",
    r"\b(wish|wishes|wished)\b": "target phase",
    r"--anyway": "--force",
    r"\b(mend|mends|mended|mending)\b": "fix",
    r"not as it should be": "problem",
    r"goes ill": "fails",
    r"\brotten\b": "inconsistent",
    r"lies? aside": "pending deletion",
    r"\bis no list\b": "is not a list",
    r"nobody is at work": "no active agents",
    r"how it stands": "status",
    r"found last": "recent findings",
    r"approve by force": "force-approve",
    r"\bcommit_surely\b": "commit_with_retry",
    r"\b(anew|thence|whence|amiss|alas|lest)\b": "a plain word",
}
# Keys of files, of --json and of the API, values of capabilities: they stay.
KEYS = re.compile(
    r"""(["'`])(stragglers|healed|mirrored|stamp\.mirrored|wish|movable|anyway)\1"""
    r"""|(move|compared|answer)\.(stragglers|healed)|\.straggler-|\*straggler-|`MOVABLE`"""
    r"""|stamp\.mirrored|meta   mirrored"""
)
PROSE = [
    "README.md",
    "CONTRIBUTING.md",
    *sorted(f"docs/{p.name}" for p in messages.PAGE.parent.glob("*.md")),
]
TEMPLATES = sorted((messages.ROOT / "dashboard" / "pages" / "templates").glob("*.html"))


def wrong_words(text):
    bare = KEYS.sub("", text)
    return [
        f"{found.group()!r}: say {word}"
        for pattern, word in PRIVATE.items()
        for found in re.finditer(pattern, bare, re.IGNORECASE)
    ]


def texts_of(path):
    """Yield a module's comments and string constants."""
    for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
        if token.type in {tokenize.COMMENT, tokenize.STRING} or token.type == getattr(
            tokenize, "FSTRING_MIDDLE", -1
        ):
            yield token.start[0], token.string


def test_the_page_of_messages_is_current():
    assert messages.PAGE.read_text() == messages.written()


def test_the_page_names_real_errors():
    """It is read from the source; these are raised in four packages."""
    found = {m.error for m in messages.messages()}
    assert {"Busy", "PreflightFailed", "NotAllowed", "Issue", "UsageError"} <= found


@pytest.mark.parametrize("name", PROSE)
def test_pages_use_the_terms(name):
    assert wrong_words((messages.ROOT / name).read_text()) == []


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda p: p.name)
def test_templates_use_the_terms(path):
    assert wrong_words(path.read_text()) == []


@pytest.mark.parametrize("package", messages.PACKAGES)
def test_comments_and_texts_use_the_terms(package):
    wrong = [
        f"{path.relative_to(messages.ROOT)}:{line}: {said}"
        for path in messages.sources()
        if path.relative_to(messages.ROOT).parts[0] == package
        and path.name not in {"renamed.py", "sqlite_sql.py"}
        for line, text in texts_of(path)
        for said in wrong_words(text)
    ]
    assert wrong == []
