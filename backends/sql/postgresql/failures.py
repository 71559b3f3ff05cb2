"""Errors of PostgreSQL, translated into those of the contract by their SQLSTATE.

https://www.postgresql.org/docs/current/errcodes-appendix.html lists the codes.
"""

from __future__ import annotations

import psycopg

from registry_api.errors import (
    Busy,
    CorruptDocument,
    InvalidInput,
    NotPermitted,
    OutcomeUnknown,
    RegistryError,
    SettingsError,
    Unavailable,
)

__all__ = ["failed", "failed_commit", "refuse_local_commit"]

# Classes of codes after which a transaction was certainly not committed: bad data, a constraint, a
# conflict with another transaction, no resources, a syntax or privilege error, a limit exceeded, a
# lock not obtained, a statement cancelled (a COMMIT that is cancelled is answered with a warning).
_NOTHING_HAPPENED = ("22", "23", "25", "40", "42", "53", "54", "55", "57014")

_DATABASE = "Check the database and the role in the URL; docs/postgresql.md shows how to make them"

_BY_CODE: dict[str, tuple[type[RegistryError], str]] = {
    "28P01": (SettingsError, "Correct the password, or the file that ?passfile= names"),
    "28000": (SettingsError, _DATABASE),
    "3D000": (SettingsError, _DATABASE),
    "42501": (NotPermitted, "Grant the role what docs/postgresql.md lists, or use its owner"),
    "42P01": (CorruptDocument, "Restore the database from a backup"),
    "53300": (Unavailable, "Close other connections or raise max_connections, then try again"),
    "53100": (Unavailable, "Free disk space on the server, then try again"),
    "53200": (Unavailable, "The server is out of memory: try again when it has less to do"),
    "55P03": (Busy, "Try again"),
    "57014": (Unavailable, "Try again; if it takes too long again, raise statement_timeout"),
    "40001": (Busy, "Try again"),
    "40P01": (Busy, "Try again"),
    "25006": (Unavailable, "Name a host that takes writes; a standby must be promoted first"),
    "54000": (InvalidInput, "Shorten the values: one of them is too long for an index"),
    "22021": (InvalidInput, "Leave out what is not text, e.g. U+0000"),
    "23505": (InvalidInput, "Use each id only once"),
}


def failed(error: psycopg.Error, location: str) -> RegistryError:
    """Return the contract's error for one after which nothing has happened."""
    code = error.sqlstate or _said(error)
    kind, step = _BY_CODE.get(code, (Unavailable, "Try again"))
    if not code:
        step = "Make sure that the server runs and can be reached, then try again"
    elif code.startswith("42") and code not in _BY_CODE:
        step = "The tables are not as this version makes them: restore the database from a backup"
    return kind(f"{location}: {_text(error)}", next_step=step)


_REPLAY = "Commit the same changeset again: a replay is recognised"


def refuse_local_commit(
    warnings: list[str],
    location: str,
    *,
    next_step: str = "Commit the same changeset again when the standby answers",
) -> None:
    """Raise OutcomeUnknown if the wait for a synchronous standby was cancelled, as a warning of the
    server says: the commit may be lost in a failover.
    """
    if warnings:
        raise OutcomeUnknown(f"{location}: {warnings[0]}", next_step=next_step)


def failed_commit(
    error: psycopg.Error, location: str, *, next_step: str = _REPLAY
) -> RegistryError:
    """Return the contract's error for a COMMIT that raised one.

    ``next_step`` is what to do where its outcome is unknown.
    """
    # A server that ends with a PANIC, e.g. on a full disk, may have written the commit before.
    ends = error.diag.severity_nonlocalized in {"FATAL", "PANIC"}
    if error.sqlstate is not None and error.sqlstate.startswith(_NOTHING_HAPPENED) and not ends:
        return failed(error, location)
    return OutcomeUnknown(
        f"{location}: the answer to a commit was lost: {_text(error)}", next_step=next_step
    )


def _said(error: psycopg.Error) -> str:
    """Return the code of an error at connecting, which libpq passes on as text only."""
    attempts = [line for line in str(error).splitlines() if line.startswith("- host: ")]
    codes = {_code_in(text) for text in attempts or [str(error)]}
    # Of several hosts one may refuse what another one will accept when it takes writes again.
    return codes.pop() if len(codes) == 1 else ""


def _code_in(text: str) -> str:
    known = {
        "password authentication failed": "28P01",
        "no password supplied": "28P01",
        "no pg_hba.conf entry": "28000",
        "too many clients": "53300",
        "remaining connection slots": "53300",
    }
    found = next((code for words, code in known.items() if words in text), "")
    if not found and "does not exist" in text:
        return "3D000"
    return found


def _text(error: psycopg.Error) -> str:
    """Return what happened in one line; at connecting to several hosts, what happened at each."""
    lines = str(error).strip().splitlines()
    attempts = [
        line.rpartition("connection to server at ")[2] for line in lines if "- host:" in line
    ]
    return "; ".join(attempts) or (lines[0] if lines else type(error).__name__)
