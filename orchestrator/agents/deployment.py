"""Starting and stopping agents: reserve, start, confirm, or remove the reservation.

A process waits until its record is confirmed, and ends if the orchestrator that started it dies
before that: no agent's program runs without a record. A record whose owner died before starting the
process is reported as ``never started``.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from orchestrator.agents import callers, process_identity
from orchestrator.agents.agent_files import AgentFiles
from orchestrator.agents.client_config import OWN, Endpoint, reached_by
from orchestrator.agents.launchers.selection import Launchers
from orchestrator.errors import AgentEnded, LaunchFailed, UnknownAgentKind
from orchestrator.observer import Observer
from orchestrator.rules import agents
from orchestrator.rules.agents import ConfirmAgent
from orchestrator.rules.draft import extra_of
from orchestrator.settings import AgentKind
from registry_api import Agent, RegistryStore, Task, transact
from registry_api.errors import InvalidInput
from registry_api.plugins import Launch, Prepared, Stopped
from registry_api.workspace import (
    IN_PROJECT,
    STATE_DIR,
    expand_folder,
    instance_of,
    place_of,
)
from registry_api.workspace import safe_paths as inside

__all__ = [
    "Deployment",
    "Ended",
    "Order",
    "host_name_of",
    "launcher_of",
    "process_of",
    "working_directory",
]

_CARE = 60.0  # seconds after an agent's last sign of life in which its owner may record its exit
# The agents that this process starts or waits for, of all its orchestrators.
_OURS = set[tuple[str, str]]()
_NEVER = "never started"
_NAME = re.compile(r"\{(\w+)\}")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,127}", re.ASCII)


class Ended(Protocol):
    """A callback for the end of the process ``identity`` of an agent."""

    def __call__(self, task_id: str, agent_id: str, code: int | None, *, identity: str) -> None:
        """Take the exit code ``code``, negative for a signal, None if it is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """How to start one agent, checked before the agent is reserved."""

    kind: str
    argv: tuple[str | tuple[str, ...], ...]
    environment: Mapping[str, str]
    preamble: bool
    model: str | None
    effort: str | None
    cwd: Path | None

    @property
    def external(self) -> bool:
        """Whether the conductor runs the agent itself."""
        return not self.argv


class Deployment:
    """Start and stop of reserved agents, in one workspace."""

    def __init__(
        self,
        store: RegistryStore,
        launchers: Launchers,
        *,
        workspace: Path,
        kinds: Mapping[str, AgentKind],
        now: Callable[[], datetime],
        grace: float,
        launch_deadline: float,
        endpoint: Endpoint | None = None,
        observer: Observer | None = None,
    ) -> None:
        self._observer = observer or Observer()
        self._store = store
        self._launchers = launchers
        self._workspace = workspace
        self.files = AgentFiles(workspace)
        self._kinds = kinds
        self._now = now
        self._grace = grace
        self._launch_deadline = launch_deadline
        self._endpoint = endpoint

    def order(self, kind: str, *, model: str | None, effort: str | None, cwd: str | None) -> Order:
        """Check that a kind can be started; raises UnknownAgentKind or LaunchFailed."""
        known = self._kinds.get(kind)
        if known is None:
            raise UnknownAgentKind(
                f"no kind of agent is called {kind[:80]!r}",
                next_step=f"Known kinds: {', '.join(sorted(self._kinds))}; to add one, edit "
                "registry.toml and restart the server",
                kinds=sorted(self._kinds),
            )
        for name, word in (("model", model), ("effort", effort)):
            if word is not None and not _WORD.fullmatch(word):
                raise InvalidInput(
                    f"the {name} {word[:80]!r} is not a valid name",
                    next_step="Use letters, digits and ._:/@-, beginning with a letter or digit",
                )
        # Check now that no value is missing: a reserved agent must not fail for that.
        _filled(known.argv, {"model": model or known.model, "effort": effort or known.effort})
        program = known.argv[0] if known.argv else None
        if isinstance(program, str) and shutil.which(program) is None:
            raise LaunchFailed(
                f"the program {program!r} of kind {kind} is not installed here",
                next_step="Install it, or name another kind; kind external starts nothing",
            )
        return Order(
            kind=kind,
            argv=known.argv,
            environment=known.environment,
            preamble=known.preamble,
            model=model or known.model,
            effort=effort or known.effort,
            cwd=working_directory(cwd, self._workspace),
        )

    def start(self, task: Task, agent: Agent, order: Order, prompt: str, *, ended: Ended) -> None:
        """Start a reserved agent and confirm it.

        Raises AgentEnded if it was ended, or another process took over its start, in the meantime,
        else LaunchFailed; its program did not run.
        """
        if order.external:
            return
        prepared: Prepared | None = None
        task_id, agent_id = task.task_id, agent.agent_id

        confirming = False

        def gone(code: int | None) -> None:
            # A process that was never confirmed is not the agent's: another one may be.
            try:
                if confirming and prepared is not None:
                    ended(task_id, agent_id, code, identity=prepared.identity)
            finally:
                _OURS.discard((task_id, agent_id))

        secret = callers.new_secret(task_id, agent_id)
        _OURS.add((task_id, agent_id))
        try:
            with self._launch(task, agent, order, prompt, secret) as launch:
                prepared = self._launchers.current.prepare(launch, gone)
            confirmed = ConfirmAgent(
                agent_id=agent_id,
                identity=prepared.identity,
                pid=prepared.pid,
                at=self._now(),
                secret_hash=callers.hash_of(secret),
                host=process_identity.host_name(),
                launcher=self._launchers.name,
                session=getattr(prepared, "session", None),
                attach=tuple(getattr(prepared, "attach", ())),
                reservation=agents.reservation_of(agent),
            )
            confirming = True
            transact(self._store, task_id, lambda s: agents.confirm(s, confirmed), actor="deploy")
            prepared.go()
            self._observer.started(self._launchers.name)
        except BaseException as error:
            confirming = False
            if prepared is not None:
                prepared.cancel()
            else:
                _OURS.discard((task_id, agent_id))
            if isinstance(error, AgentEnded) or not isinstance(error, Exception):
                raise
            raise LaunchFailed(
                f"agent {agent_id} could not be started: {str(error) or repr(error)}",
                next_step="Fix what the message names, then deploy_agent again",
            ) from error

    def stop(self, stopped: Iterable[Agent]) -> tuple[Stopped, ...]:
        """Stop the processes of agents and the processes that they left, all at the same time.

        If this registry is a copy, the agents that the other instance started are not stopped.
        Returns what was found.
        """
        by_launcher: dict[str, list[str]] = {}
        for agent in stopped:
            identity = process_of(agent)
            if identity is not None and not self._is_of_another(agent):
                by_launcher.setdefault(launcher_of(agent), []).append(identity)
        found: list[Stopped] = []
        for name, identities in by_launcher.items():
            launcher = self._launchers.get(name)
            if launcher is not None:
                found += launcher.stop(identities, grace=self._grace) or ()
        return tuple(found)

    def process(self, agent: Agent) -> str:
        """Return the state of an active agent's process.

        ``alive``; ``dead``; ``ending``: it has ended and its exit is being recorded; ``starting``;
        ``never started``: its owner is dead, has given up, or took longer than the launch
        deadline; ``external``: not started by an orchestrator; ``elsewhere``: on another host,
        whose processes cannot be seen, or started by another instance of the registry, of which
        this one is a copy, or by a launcher that is not installed here.
        """
        identity, owner = process_of(agent), extra_of(agent).get("reserved_by")
        if self._is_of_another(agent):
            assert isinstance(owner, str)
            gone = process_identity.of_earlier_boot(owner)
            return "elsewhere" if not gone else "dead" if identity else _NEVER
        launcher = self._launchers.get(launcher_of(agent))
        if launcher is None:
            return "elsewhere"
        if identity is not None and launcher.alive(identity):
            # Its program may have ended, and a process that it started be alive.
            return "alive" if self.files.exit_code(agent) is None else "dead"
        if not isinstance(owner, str):
            return "dead" if identity else "external"
        if not process_identity.is_here(owner):
            return "elsewhere"
        if (
            identity is not None
            and not process_identity.of_earlier_boot(owner)
            and self.files.is_being_noted(agent)
        ):
            return "ending"
        if self._cared_for(agent, owner):
            return "ending" if identity else "starting"
        return "dead" if identity else _NEVER

    def owner(self) -> str:
        """Return the owner tag of this process: ``pid:birth:place:instance:path``.

        The first three parts identify the process, ``instance`` is the registry's, and ``path`` is
        a digest of the workspace's path.
        """
        return ":".join((process_identity.own_identity(), *self._instance()))

    def _is_of_another(self, agent: Agent) -> bool:
        """Whether another instance of the registry started the agent.

        An earlier instance at this same path does not count: there a backup was restored while the
        agent continued.
        """
        owner = extra_of(agent).get("reserved_by")
        theirs = owner.split(":")[3:] if isinstance(owner, str) else []
        return bool(theirs) and not set(theirs) & set(self._instance())

    def _instance(self) -> tuple[str, str]:
        return instance_of(self._workspace / STATE_DIR), place_of(self._workspace)

    def _cared_for(self, agent: Agent, owner: str) -> bool:
        """Whether a live process is starting the agent, or recording its exit."""
        reserved = extra_of(agent).get("reserved_uptime")
        if process_of(agent) is None and isinstance(reserved, (int, float)):
            # By the clock since the boot: a step of the time of day must not fail a start.
            waited = process_identity.uptime() - reserved
            return waited < self._launch_deadline and process_identity.alive(owner)
        if owner == self.owner():
            return (agent.task_id, agent.agent_id) in _OURS
        sign = agent.last_update or agent.started_at
        lately = sign is not None and (self._now() - sign).total_seconds() < _CARE
        return lately and process_identity.alive(owner)

    @contextmanager
    def _launch(
        self, task: Task, agent: Agent, order: Order, prompt: str, secret: str
    ) -> Iterator[Launch]:
        """Open the files of a launch, inside the workspace; they are closed at the end."""
        task_id, agent_id = task.task_id, agent.agent_id
        with_file = any("{mcp_config}" in part for part in _flat(order.argv))
        values = {
            "model": order.model,
            "effort": order.effort,
            "workspace": str(self._workspace),
            "task_id": task_id,
            "agent_id": agent_id,
            **reached_by(self._workspace, self._endpoint, with_file=with_file),
        }
        mine = {
            "REGISTRY_WORKSPACE": str(self._workspace),
            "REGISTRY_TASK_ID": task_id,
            "REGISTRY_AGENT_ID": agent_id,
            "REGISTRY_INSTANCE": instance_of(self._workspace / STATE_DIR),
            callers.SECRET: secret,
        }
        if self._endpoint is not None:
            mine["REGISTRY_ORCHESTRATOR_URL"] = self._endpoint.url
            mine["REGISTRY_ORCHESTRATOR_TOKEN"] = secret
        inherited = {k: v for k, v in os.environ.items() if k not in OWN}
        with self.files.opened(task_id, agent_id, prompt) as files:
            cwd = (
                os.open(order.cwd, os.O_RDONLY | os.O_DIRECTORY)
                if order.cwd
                else inside.open_folder(self._workspace, task_id)
            )
            try:
                yield Launch(
                    task_id=task_id,
                    agent_id=agent_id,
                    argv=_filled(order.argv, values),
                    files=(files.prompt, files.log, files.errors, cwd),
                    cwd=order.cwd or self._workspace / task_id,
                    prompt=files.prompt_path,
                    log=files.log_path,
                    errors=files.errors_path,
                    environment={**inherited, **order.environment, **mine},
                    exit_file=files.exit_file,
                )
            finally:
                os.close(cwd)


def process_of(agent: Agent) -> str | None:
    """Return the identity of an agent's process, None before it is confirmed."""
    identity = extra_of(agent).get("process")
    return identity if isinstance(identity, str) else None


def launcher_of(agent: Agent) -> str:
    """Return the name of the launcher that started an agent; version 0.1 had only ``process``."""
    name = extra_of(agent).get("launcher")
    return name if isinstance(name, str) else "process"


def host_name_of(agent: Agent) -> str:
    """Return the name of the host on which an agent was started, empty if it is not known."""
    name = extra_of(agent).get("host")
    return name if isinstance(name, str) else ""


def working_directory(cwd: str | None, workspace: Path) -> Path | None:
    """Return a working directory; raises InvalidInput unless it exists and is absolute.

    ``${workspaceFolder}``, which some clients pass on, is the folder of the project: that of an
    ``.agent-workspace``, else the server's.
    """
    if not cwd:
        return None
    project = (lambda: workspace.parent) if workspace.name == IN_PROJECT else Path.cwd
    there = False
    with suppress(OSError):
        cwd = expand_folder(cwd, project)
    with suppress(ValueError, OSError):
        there = Path(cwd).is_absolute() and Path(cwd).is_dir()
    if not there:
        raise InvalidInput(
            f"the working directory {cwd[:200]!r} is not an existing folder with an absolute path",
            next_step="Give an existing one",
        )
    return Path(cwd)


def _flat(argv: tuple[str | tuple[str, ...], ...]) -> tuple[str, ...]:
    return tuple(p for part in argv for p in ((part,) if isinstance(part, str) else part))


def _filled(
    argv: tuple[str | tuple[str, ...], ...], values: Mapping[str, str | None]
) -> tuple[str, ...]:
    """Fill in the placeholders in one pass: a value is never searched for placeholders."""

    def value(match: re.Match[str]) -> str:
        return values.get(match[1], match[0]) or ""

    filled: list[str] = []
    for part in argv:
        group = (part,) if isinstance(part, str) else part
        lacking = [n for p in group for n in _NAME.findall(p) if values.get(n, "") is None]
        if lacking and isinstance(part, str):
            raise LaunchFailed(
                f"the argument {part!r} needs a {lacking[0]}, which is not given",
                next_step="Give it, or put the argument into its own list in registry.toml",
            )
        if not lacking:
            filled.extend(_NAME.sub(value, p) for p in group)
    return tuple(filled)
