"""The access tokens of a workspace: created once, kept in ``.registry``, for its owner only."""

from __future__ import annotations

import secrets
from pathlib import Path

from registry_api.errors import SettingsError
from registry_api.workspace.durable_files import write_file
from registry_api.workspace.instance import make_state_folder
from registry_api.workspace.paths import STATE_DIR

__all__ = ["operator_token", "reader_token"]


def operator_token(workspace: Path) -> str:
    """Return the token that permits commands, creating it on first use."""
    return _token(workspace / STATE_DIR / "token")


def reader_token(workspace: Path) -> str:
    """Return the token that permits reading only, creating it on first use."""
    return _token(workspace / STATE_DIR / "token.read")


def _token(path: Path) -> str:
    make_state_folder(path.parent)
    try:
        write_file(path, secrets.token_urlsafe(32).encode(), new=True)
    except FileExistsError:
        if path.is_symlink() or path.stat().st_mode & 0o077:
            raise SettingsError(
                f"{path} can be read by others", next_step=f"Remove it: rm {path}"
            ) from None
    token = path.read_text().strip()
    if len(token) < 20:
        raise SettingsError(f"{path} holds no token", next_step=f"Remove it: rm {path}")
    return token
