"""The command-line application, and what its commands share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from registry_api import RegistryStore, Settings, load_settings
from registry_api.errors import UsageError
from registry_api.workspace.server_cli import Json, Workspace, print_json

if TYPE_CHECKING:
    from orchestrator.observer import Observer
    from orchestrator.service import Orchestrator

__all__ = [
    "AgentId",
    "Json",
    "OfTask",
    "Reason",
    "Workspace",
    "app",
    "configure_log_from",
    "need",
    "opened",
    "print_json",
    "without_defaults",
]

AgentId = Annotated[str, Parameter(help="the agent's id")]
OfTask = Annotated[
    str | None, Parameter(name="--task", help="its task, if agents of several tasks have this id")
]
Reason = Annotated[str, Parameter(help="why; it is recorded")]

app = App(
    name="registry-orchestrator",
    help="Serve the tasks of a registry to coding agents and their conductor, over MCP, and look "
    "after the agents.\n\n"
    "Example: registry-orchestrator serve --workspace ~/project/.agent-workspace",
    version=lambda: version("registry-backend"),
    version_flags=["--version"],
)


def need(*modules: str) -> None:
    """Raise UsageError if packages of the extra ``mcp`` are not installed; imports nothing."""
    for module in modules:
        if find_spec(module) is None:
            raise UsageError(
                f"the orchestrator needs {module}, which is not installed",
                next_step="pip install 'registry-backend[mcp]'",
            )


def configure_log_from(settings: Settings) -> None:
    """Configure the log of this process by the settings."""
    from orchestrator.log_output import configure_log
    from orchestrator.settings import load_orchestrator_settings

    options = load_orchestrator_settings(settings)
    configure_log(level=options.log_level, as_json=options.log_format == "json")


@contextmanager
def opened(
    workspace: Path | None,
    *,
    observer_of: Callable[[RegistryStore, Settings], Observer] | None = None,
) -> Iterator[Orchestrator]:
    """Open the orchestrator of a workspace for one command."""
    need("psutil")
    from orchestrator.observer import Observer
    from orchestrator.opening import open_orchestrator

    settings = load_settings(workspace)
    made = observer_of or (lambda _store, _settings: Observer())
    with open_orchestrator(settings, observer_of=lambda store: made(store, settings)) as service:
        yield service


def without_defaults(model: Any) -> dict[str, Any]:
    """Return an answer's fields for ``--json``, without those at their defaults."""
    found: dict[str, Any] = model.model_dump(mode="json", exclude_defaults=True)
    return found
