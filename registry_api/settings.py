"""Settings: environment variables ``REGISTRY_*``, then ``registry.toml`` in the workspace.

pydantic validates them; the two sources are read here, since pydantic-settings costs 0.24 s to
import (measured on CPython 3.11), most of what a cold ``status`` may take.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from registry_api.errors import SettingsError
from registry_api.workspace.paths import IN_PROJECT, STATE_DIR, expand_folder
from registry_api.workspace.store_location import has_credentials, public, require_private

__all__ = ["Settings", "find_workspace", "in_force", "load_settings", "section", "unknown_variable"]

PREFIX = "REGISTRY_"

_URL = r"^[^\x00]+$"

_LEGACY_VARIABLE = "CLAUDE_ORCHESTRATOR_WORKSPACE"

FILE = "registry.toml"

_SECTIONS = frozenset({"orchestrator"})  # tables that other programs read

_PLACES = (STATE_DIR, "registry/GLOBAL_REGISTRY.json", IN_PROJECT)


class Settings(BaseModel):
    """Everything that can be configured; each field is the variable ``REGISTRY_<FIELD>``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    workspace: Path = Field(default=Path(), description="base directory of the registry")
    backend: str = Field(
        default="auto",
        pattern=_URL,
        description="store name or URL; auto uses the existing registry",
    )
    source: str = Field(default="json", pattern=_URL, description="the source of a move")
    target: str = Field(default="sqlite", pattern=_URL, description="the target of a move")
    phase: int | None = Field(
        default=None, ge=0, le=4, description="the target phase; the recorded phase wins"
    )
    auto_switch: bool = Field(
        default=False,
        description="switch to the target phase when opening: forward only, once per phase",
    )
    compare: float = Field(
        default=0.05, ge=0, le=1, description="share of reads compared in phases 1 and 2"
    )
    silent_after: float = Field(
        default=900.0,
        gt=0,
        le=1e9,
        description="seconds without a sign of life until an agent is silent",
    )
    legacy_tz: str | None = Field(
        default=None, description="time zone of timestamps without one; default: this machine's"
    )
    logs: Literal["jsonl", "off"] = Field(
        default="jsonl",
        description="keep JSONL logs of progress and findings next to a local store",
    )
    lock_timeout: float = Field(
        default=5.0, gt=0, le=600, description="seconds to wait for a lock before Busy"
    )
    retire_seconds: float = Field(
        default=15.0,
        ge=0,
        le=3600,
        description="seconds that a removed document must be unused before it is deleted",
    )
    durable: bool = Field(
        default=True, description="survive power loss (fsync); off: survive kill -9 only"
    )

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)

    def places(self) -> tuple[str, ...]:
        """Return the configured stores, with their credentials: never show or store these."""
        return self.target, self.source, self.backend

    def __repr_args__(self) -> list[tuple[str | None, Any]]:
        """Hide credentials, also in a traceback."""
        return [(k, public(v) if isinstance(v, str) else v) for k, v in super().__repr_args__()]


def load_settings(
    workspace: str | os.PathLike[str] | None = None,
    *,
    env: Mapping[str, str] | None = None,
    **overrides: object,
) -> Settings:
    """Read the settings; ``overrides`` win over the environment, which wins over registry.toml.

    Raises SettingsError for an invalid value, an unknown key in registry.toml, and a
    ``REGISTRY_*`` variable that is within two letters of a known one.
    """
    env = os.environ if env is None else env
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    unknown_variable(env, known, prefix=PREFIX)
    root = find_workspace(workspace, env=env)
    from_file = _from_toml(root)
    from_env = {
        name: env[PREFIX + name.upper()]
        for name in Settings.model_fields
        if PREFIX + name.upper() in env
    }
    given = overrides if workspace is None else overrides | {"workspace": workspace}
    values: dict[str, Any] = {**from_file, **from_env, **given, "workspace": root}
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        faults = "; ".join(
            f"{PREFIX}{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors()
        )
        raise SettingsError(
            f"settings are not valid: {faults}", next_step="See docs/configuration.md"
        ) from None
    for names, origin in ((from_file, FILE), (from_env, "environment"), (given, "argument")):
        settings._origins.update(dict.fromkeys(names, origin))  # noqa: SLF001  (made here)
    return settings


def in_force(settings: Settings) -> list[tuple[str, str, str]]:
    """Return each setting as its variable, its value without credentials, and where it comes from:
    ``argument``, ``environment``, ``registry.toml`` or ``default``.
    """
    out = []
    for name in Settings.model_fields:
        value = getattr(settings, name)
        shown = "" if value is None else str(value)
        origin = settings._origins.get(name, "default")  # noqa: SLF001  (this module's)
        variable = PREFIX + name.upper()
        out.append((variable, public(shown) if isinstance(value, str) else shown, origin))
    return out


def find_workspace(
    workspace: str | os.PathLike[str] | None = None, *, env: Mapping[str, str] | None = None
) -> Path:
    """Return the workspace: the argument, REGISTRY_WORKSPACE, CLAUDE_ORCHESTRATOR_WORKSPACE, or the
    nearest parent of the current directory that holds a registry; else the current directory.

    ``.agent-workspace`` below a parent is where the legacy orchestrator keeps a project's registry.
    """
    env = os.environ if env is None else env
    named = workspace or env.get(PREFIX + "WORKSPACE") or env.get(_LEGACY_VARIABLE)
    if named:
        try:
            root = Path(expand_folder(os.fspath(named), Path.cwd)).expanduser()
            there = root.is_dir()
        except (RuntimeError, ValueError, FileNotFoundError) as error:  # the directory is gone
            raise SettingsError(f"workspace {os.fspath(named)!r}: {error}") from None
        if not there:
            raise SettingsError(
                f"workspace {root} is not a directory", next_step="Create it or name another"
            )
        return root.resolve()
    here = Path.cwd()
    for folder in (here, *here.parents):
        for place in _PLACES:
            if (folder / place).exists():
                return folder / place if place == IN_PROJECT else folder
    return here


def section(root: Path, name: str) -> dict[str, Any]:
    """Return a table of the workspace's registry.toml, where another program keeps its settings."""
    found = _toml(root).get(name, {})
    if not isinstance(found, dict):
        raise SettingsError(f"{root / FILE}: {name} is not a table", next_step=f"Write [{name}]")
    return found


def _toml(root: Path) -> dict[str, Any]:
    path = root / FILE
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path} cannot be read: {error}", next_step="Correct it") from None


def _from_toml(root: Path) -> dict[str, Any]:
    path = root / FILE
    values = {name: value for name, value in _toml(root).items() if name not in _SECTIONS}
    values.pop("workspace", None)
    unknown = sorted(set(values) - set(Settings.model_fields))
    if unknown:
        raise SettingsError(
            f"{path} has unknown keys: {', '.join(unknown)}",
            next_step=f"Known: {', '.join(sorted({*Settings.model_fields, *_SECTIONS}))}",
        )
    if any(has_credentials(v) for v in values.values() if isinstance(v, str)):
        require_private(path)
    return values


def unknown_variable(env: Mapping[str, str], known: set[str], *, prefix: str) -> None:
    """Raise SettingsError for a variable with that prefix within two letters of a known one."""
    for name in env:
        if name.startswith(prefix) and name not in known:
            near = next((k for k in sorted(known) if _within_two(name, k)), None)
            if near:
                raise SettingsError(f"unknown variable {name}", next_step=f"Did you mean {near}?")


def _within_two(a: str, b: str) -> bool:
    """Return whether the edit distance of two texts is at most 2."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1] <= 2
