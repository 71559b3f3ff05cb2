"""The command ``registry-backend``: show the status of a registry and move it between stores.

The commands are in ``commands/``. rich and the stores are imported inside them: scripts call
``status --json`` as a new process, and these imports would take most of its time.
"""

from __future__ import annotations

import errno
import gc
import logging
import os
import shlex
import sys
from collections.abc import Callable
from contextlib import suppress
from io import TextIOWrapper

import cyclopts

import backends.admin.commands  # noqa: F401  (registers the commands)
from backends.admin.app import BUSY, ERROR, MISMATCH, OK, REFUSED, TIMED_OUT, USAGE, app, print_json
from registry_api.errors import (
    Busy,
    NotPermitted,
    PreflightFailed,
    RegistryError,
    SwitchTimedOut,
    Unavailable,
    UsageError,
    VerificationFailed,
)
from registry_api.renamed import new_options
from registry_api.typed_errors import typed

__all__ = ["app", "main"]

log = logging.getLogger("registry_backend")

_NARROWEST = 20  # columns

_EXIT: tuple[tuple[type[RegistryError], int], ...] = (
    (VerificationFailed, MISMATCH),
    (PreflightFailed, REFUSED),
    (UsageError, USAGE),
    (SwitchTimedOut, TIMED_OUT),
    (Busy, BUSY),
)


def main(tokens: list[str] | None = None) -> int:
    """Run the command and return its exit code.

    0 ok, 1 error, 2 usage, 3 mismatch or conflict, 4 busy, 5 timed out, 6 preflight refused.
    """
    tokens = sys.argv[1:] if tokens is None else tokens
    _suit_terminal()
    try:
        if _wants_more(tokens):
            _add_commands()
        tokens = _command_first(tokens)
        if tokens[:1] == ["switch"]:
            tokens = new_options(tokens)
        code = app(
            tokens,
            exit_on_error=False,
            print_error=False,
            result_action="return_value",
        )
    except RegistryError as error:
        return _refused(error, tokens)
    except cyclopts.CycloptsError as error:
        help_of = " ".join(["registry-backend", *(error.command_chain or ()), "--help"])
        _report_error("usage", _misunderstood(error), help_of, as_json="--json" in tokens)
        return USAGE
    except BrokenPipeError:  # as of `| head`
        raise
    except OSError as error:
        if not isinstance(found := typed(error), NotPermitted):
            what = f"{error.strerror}: {error.filename}" if error.filename else str(error)
            found = Unavailable(what, next_step=_next_step_for(error))
        return _refused(found, tokens)
    return code if isinstance(code, int) else OK


def _suit_terminal() -> None:
    """Make output safe: characters that the terminal's encoding lacks become question marks."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
    columns = os.environ.get("COLUMNS", "")
    if columns.isascii() and columns.isdigit() and int(columns) < _NARROWEST:
        del os.environ["COLUMNS"]  # with fewer columns rich prints nothing


def _refused(error: RegistryError, tokens: list[str]) -> int:
    error = typed(error) or error
    next_step = error.next_step
    if isinstance(error, NotPermitted):
        owner = shlex.quote(str(error.fields.get("owner", "its owner")))
        next_step = f"sudo -u {owner} registry-backend {shlex.join(tokens)}"
    _report_error(error.code, error.message, next_step, as_json="--json" in tokens)
    return next((code for kind, code in _EXIT if isinstance(error, kind)), ERROR)


def _wants_more(tokens: list[str]) -> bool:
    """Return whether plugins must be loaded: not for a built-in command, as loading is slow."""
    return "--help" in tokens or any(t not in app for t in tokens[_command_at(tokens) :][:1])


def _add_commands() -> None:
    from registry_api.plugins import load_plugins

    def register(name: str, command: Callable[..., int]) -> None:
        if name in _OURS:
            log.warning(
                "a plugin's command %s is ignored: there is a built-in one of that name", name
            )
        elif name not in app:
            app.command(command, name=name)

    load_plugins().manager.hook.registry_register_commands(register=register)


def _command_at(tokens: list[str]) -> int:
    at = 0
    while at < len(tokens) and tokens[at].startswith("--"):
        at += 2 if tokens[at] == "--workspace" else 1
    return at


def _command_first(tokens: list[str]) -> list[str]:
    """Move options given before the command to after it, because the command takes them."""
    at = _command_at(tokens)
    if not 0 < at < len(tokens) or tokens[at] not in app:
        return tokens
    return [tokens[at], *tokens[:at], *tokens[at + 1 :]]


def _misunderstood(error: cyclopts.CycloptsError) -> str:
    if isinstance(error, cyclopts.UnusedCliTokensError) and error.unused_tokens:
        found = error.unused_tokens[0]
        return f"unexpected argument {found!r}" if error.command_chain else f"no command {found!r}"
    return str(error)


def _next_step_for(error: OSError) -> str:
    if error.errno == errno.EROFS:
        return "Mount the file system for writing"
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return "Free disk space, then try again"
    return "Check that file and its folder's permissions" if error.filename else "Try again"


def _report_error(code: str, message: str, next_step: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"error": {"code": code, "message": message, "next": next_step}})
    else:
        sys.stderr.write(f"registry-backend: {message}\n")
        if next_step:
            sys.stderr.write(f"  next: {next_step}\n")


_OURS = {name for name in app if not name.startswith("-")}


def run() -> None:
    """Run the command as a console script and exit with its code."""
    try:
        code = main()
        sys.stdout.flush()
    except OSError as error:
        # Standard output is full or closed: nothing more can be written to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            with suppress(OSError):
                sys.stderr.write(f"registry-backend: the output could not be written: {error}\n")
                sys.stderr.write("  next: Free disk space, or redirect the output\n")
        code = ERROR
    gc.freeze()  # or the interpreter looks through all modules before it ends: a fifth of `status`
    sys.exit(code)
