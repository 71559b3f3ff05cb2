"""The orchestrator's settings: variables ``REGISTRY_ORCHESTRATOR_*``, else the file.

The file is the table ``[orchestrator]`` of the workspace's ``registry.toml``. Kinds of agents are
configured in the file only.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

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
# The variables of legacy installations; the new ones take precedence.
_LEGACY = {
    "max_agents": "CLAUDE_ORCHESTRATOR_MAX_AGENTS",
    "max_concurrent": "CLAUDE_ORCHESTRATOR_MAX_CONCURRENT",
    "max_depth": "CLAUDE_ORCHESTRATOR_MAX_DEPTH",
}


class AgentKind(BaseModel):
    """A kind of agent: the program to start and its arguments, without a shell.

    In ``argv`` these placeholders are filled in: ``{model} {effort} {workspace} {task_id}
    {agent_id}``, and for access to this orchestrator either ``{mcp_config}``, the path of a file in
    Claude's format, or the TOML values ``{mcp_command}``, ``{mcp_args}``, ``{mcp_env}`` and
    ``{mcp_env_vars}``; the last are the names of the environment variables that the client must
    pass on. An element that is itself a list is left out if one of its values is not given. The
    program reads the prompt on standard input, after a preamble that says who the agent is, how it
    reports and what the phase before has left, unless ``preamble`` is off. With an empty ``argv``
    nothing is started: the conductor runs such an agent itself.
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
            raise ValueError(f"unknown placeholder {{{min(unknown)}}}; known: {known}")
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
    """Settings; each field but ``kinds`` is also the variable ``REGISTRY_ORCHESTRATOR_<FIELD>``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_agents: int = Field(
        default=45, ge=1, le=10_000, description="agents of a task in total, without reviewers"
    )
    max_concurrent: int = Field(
        default=20, ge=1, le=1000, description="active agents of a task at once, without reviewers"
    )
    max_depth: int = Field(
        default=5,
        ge=1,
        le=100,
        description="how deeply agents may be nested",
    )
    reviewers: int = Field(default=2, ge=1, le=5, description="reviewers of a phase")
    reviewer_retries: int = Field(
        default=2, ge=0, le=20, description="how often a reviewer that died is replaced"
    )
    max_revision_rounds: int = Field(
        default=3, ge=0, le=100, description="revisions of a phase before it is escalated"
    )
    auto_review: bool = Field(
        default=True, description="the last agent of a phase opens its review"
    )
    default_kind: str = Field(default="claude", description="the kind of agent to deploy")
    reviewer_kind: str | None = Field(
        default=None, description="the kind of agent for reviewers; default: default_kind"
    )
    launcher: str = Field(default="process", description="the launcher that starts agents")
    stop_grace: float = Field(
        default=5.0,
        ge=0,
        le=600,
        description="seconds until an agent that is told to stop is killed",
    )
    launch_deadline: float = Field(
        default=60,
        gt=0,
        le=3600,
        description="seconds after which an agent that has not been started counts as failed",
    )
    max_runtime: float = Field(
        default=86_400,
        ge=0,
        le=31_536_000,
        description="seconds after which a running agent is stopped; 0: never",
    )
    health_interval: float = Field(
        default=10,
        ge=0.1,
        le=3600,
        description="seconds from one health scan to the next",
    )
    end_grace: float = Field(
        default=60,
        ge=0,
        le=3600,
        description="seconds that an agent's process may run after its final report",
    )
    archive_logs_after: float = Field(
        default=7,
        ge=0,
        le=36_500,
        description="days after an agent's end until its logs are moved to its task's archive",
    )
    remove_logs_after: float = Field(
        default=0,
        ge=0,
        le=36_500,
        description="days after an agent's end until its archived logs are removed; 0: never",
    )
    logs_max_bytes: int = Field(
        default=0,
        ge=0,
        le=2**53,
        description="bytes of archived logs, of which the oldest are removed; 0: no limit",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="warning", description="the lowest level that a server and the health daemon log"
    )
    log_format: Literal["text", "json"] = Field(
        default="text", description="the form of a log's lines on standard error"
    )
    session_idle: float = Field(
        default=1800, gt=0, le=86_400, description="seconds after which an unused HTTP session ends"
    )
    kinds: dict[str, AgentKind] = Field(
        default_factory=dict, description="more kinds of agents; in the file only"
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
                    f"kind {name} has no argv; use kind external for agents that run elsewhere"
                )
        return self

    @property
    def limits(self) -> Limits:
        """The limits of tasks that set none of their own."""
        return Limits(
            max_agents=self.max_agents,
            max_concurrent=self.max_concurrent,
            max_depth=self.max_depth,
        )

    @property
    def all_kinds(self) -> dict[str, AgentKind]:
        """The kinds by name; a kind in the file replaces a built-in kind of the same name."""
        return {**KINDS, **self.kinds}


def load_orchestrator_settings(
    settings: Settings, *, env: Mapping[str, str] | None = None
) -> OrchestratorSettings:
    """Read the settings; raises SettingsError for an invalid value or a misspelt name."""
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
            next_step=f"Known keys: {', '.join(OrchestratorSettings.model_fields)}; of a kind: "
            f"{', '.join(AgentKind.model_fields)}",
        ) from None


def _fault(error: Any) -> str:
    """Describe an invalid setting without pydantic's terms."""
    place = ".".join(str(part) for part in error["loc"] if not str(part).startswith("tuple["))
    said = {
        "extra_forbidden": "there is no such key",
        "tuple_type": "it must be a list of strings",
        "string_type": "it must be a string",
        "bool_parsing": "it must be true or false",
        "int_parsing": "it must be a number",
    }.get(error["type"], error["msg"].removeprefix("Value error, "))
    return f"{place}: {said}" if place else str(said)
