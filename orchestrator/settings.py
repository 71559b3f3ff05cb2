"""The orchestrator's settings: ``REGISTRY_ORCHESTRATOR_*`` over the table ``[orchestrator]`` of the
workspace's ``registry.toml``. Kinds of agents are given in the file only.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from orchestrator.rules.agents import Limits
from registry_api.errors import SettingsError
from registry_api.settings import FILE, Settings, section, unknown_variable

__all__ = ["EXTERNAL", "AgentKind", "OrchestratorSettings", "load_orchestrator_settings"]

PREFIX = "REGISTRY_ORCHESTRATOR_"
EXTERNAL = "external"
FILLED_IN = frozenset(
    {
        *("model", "effort", "workspace", "task_id", "agent_id"),
        *("mcp_config", "mcp_command", "mcp_args", "mcp_env", "mcp_env_vars"),
    }
)
# What older installations set; ours come first.
_LEGACY = {
    "max_agents": "CLAUDE_ORCHESTRATOR_MAX_AGENTS",
    "max_concurrent": "CLAUDE_ORCHESTRATOR_MAX_CONCURRENT",
    "max_depth": "CLAUDE_ORCHESTRATOR_MAX_DEPTH",
}


class AgentKind(BaseModel):
    """How a kind of agent is started: a program and its arguments, never a shell's line.

    In ``argv`` these are filled in: ``{model} {effort} {workspace} {task_id} {agent_id}``, and how
    to reach this orchestrator: ``{mcp_config}``, the path of a file as Claude reads it, or
    ``{mcp_command}``, ``{mcp_args}``, ``{mcp_env}`` and ``{mcp_env_vars}``, the names of what it
    must pass on of its environment, TOML values. An element that is itself a list is left out
    where one of its values is not given. The prompt is the program's standard input, after a
    preamble that says who the agent is and how it reports, unless ``preamble`` is off. An empty
    ``argv``: nothing is started, the conductor runs such an agent itself.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    argv: tuple[str | tuple[str, ...], ...] = ()
    model: str | None = None
    effort: str | None = None
    preamble: bool = True
    environment: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _known_names(self) -> AgentKind:
        parts = [p for part in self.argv for p in ((part,) if isinstance(part, str) else part)]
        unknown = {n for p in parts for n in re.findall(r"\{(\w+)\}", p)} - FILLED_IN
        if unknown:
            known = ", ".join(sorted(FILLED_IN))
            raise ValueError(f"nothing is filled in for {{{min(unknown)}}}; known: {known}")
        return self


KINDS: Mapping[str, AgentKind] = MappingProxyType(
    {
        "claude": AgentKind(
            argv=(
                *("claude", "--print", "--output-format", "stream-json", "--verbose"),
                *("--permission-mode", "acceptEdits", "--allowedTools", "mcp__orchestrator"),
                ("--mcp-config", "{mcp_config}"),
                ("--model", "{model}"),
                ("--effort", "{effort}"),
            )
        ),
        "codex": AgentKind(
            argv=(
                *("codex", "exec", "--json", "--skip-git-repo-check"),
                *("--config", "mcp_servers.orchestrator.command={mcp_command}"),
                *("--config", "mcp_servers.orchestrator.args={mcp_args}"),
                *("--config", "mcp_servers.orchestrator.env={mcp_env}"),
                *("--config", "mcp_servers.orchestrator.env_vars={mcp_env_vars}"),
                ("--model", "{model}"),
                ("--config", "model_reasoning_effort={effort}"),
                "-",
            )
        ),
        "gemini": AgentKind(
            argv=("gemini", "--output-format", "stream-json", ("--model", "{model}")),
        ),
        EXTERNAL: AgentKind(),
    }
)


class OrchestratorSettings(BaseModel):
    """Each field is the variable ``REGISTRY_ORCHESTRATOR_<FIELD>``, but for ``kinds``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_agents: int = Field(
        default=45, ge=1, le=10_000, description="agents of a task in all, reviewers aside"
    )
    max_concurrent: int = Field(
        default=20, ge=1, le=1000, description="agents of a task at work at once, reviewers aside"
    )
    max_depth: int = Field(
        default=5, ge=1, le=100, description="how deep agents may deploy agents of their own"
    )
    reviewers: int = Field(default=2, ge=1, le=5, description="reviewers of a phase")
    max_revision_rounds: int = Field(
        default=3, ge=0, le=100, description="revisions of a phase until it is escalated"
    )
    auto_review: bool = Field(
        default=True, description="the last agent of a phase opens its review"
    )
    default_kind: str = Field(default="claude", description="the kind of agent that is deployed")
    reviewer_kind: str | None = Field(
        default=None, description="the kind of agent that reviews; default: the default kind"
    )
    launcher: str = Field(default="process", description="what starts agents")
    stop_grace: float = Field(
        default=5.0, ge=0, le=600, description="seconds that an agent has to end when it is stopped"
    )
    end_grace: float = Field(
        default=60, ge=0, le=3600, description="seconds that an agent has to end after it is done"
    )
    session_idle: float = Field(
        default=1800, gt=0, le=86_400, description="seconds after which an unused HTTP session ends"
    )
    kinds: dict[str, AgentKind] = Field(
        default_factory=dict, description="further kinds of agents; the file only"
    )

    @model_validator(mode="after")
    def _known_kinds(self) -> OrchestratorSettings:
        for name in (self.default_kind, self.reviewer_kind):
            if name is not None and name not in self.all_kinds:
                known = ", ".join(sorted(self.all_kinds))
                raise ValueError(f"no kind of agent is called {name!r}; known: {known}")
        for name, kind in self.kinds.items():
            if not kind.argv and name != EXTERNAL:
                raise ValueError(
                    f"kind {name} has no argv; kind external is for agents run elsewhere"
                )
        return self

    @property
    def limits(self) -> Limits:
        """The limits of tasks that state none."""
        return Limits(
            max_agents=self.max_agents,
            max_concurrent=self.max_concurrent,
            max_depth=self.max_depth,
        )

    @property
    def all_kinds(self) -> dict[str, AgentKind]:
        """The kinds by name; one of the file takes the place of a built-in one."""
        return {**KINDS, **self.kinds}


def load_orchestrator_settings(
    settings: Settings, *, env: Mapping[str, str] | None = None
) -> OrchestratorSettings:
    """Read them; raises SettingsError for a value that does not fit or a near miss of a name."""
    env = os.environ if env is None else env
    fields = [name for name in OrchestratorSettings.model_fields if name != "kinds"]
    known = {PREFIX + name.upper() for name in fields}
    unknown_variable(env, known, prefix=PREFIX)
    values = dict(section(settings.workspace, "orchestrator"))
    for name in fields:
        for variable in (PREFIX + name.upper(), _LEGACY.get(name, "")):
            if variable in env:
                values[name] = env[variable]
                break
    try:
        return OrchestratorSettings.model_validate(values)
    except ValidationError as error:
        faults = "; ".join(map(_fault, error.errors(include_url=False)))
        raise SettingsError(
            f"the orchestrator's settings ({settings.workspace / FILE}, {PREFIX}*): {faults}",
            next_step=f"Known: {', '.join(OrchestratorSettings.model_fields)}; of a kind: "
            f"{', '.join(AgentKind.model_fields)}",
        ) from None


def _fault(error: Any) -> str:
    """Say a fault of a setting without the words of a Python program."""
    place = ".".join(str(part) for part in error["loc"] if not str(part).startswith("tuple["))
    said = {
        "extra_forbidden": "there is no such key",
        "tuple_type": "it must be a list of texts",
        "string_type": "it must be a text",
        "bool_parsing": "it must be true or false",
        "int_parsing": "it must be a number",
    }.get(error["type"], error["msg"].removeprefix("Value error, "))
    return f"{place}: {said}" if place else str(said)
