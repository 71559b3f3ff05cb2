"""Starting and stopping agents: reserve, start, confirm, or remove the reservation.

A process waits until its record is confirmed, and ends if the orchestrator that started it dies
before that: no agent's program runs without a record. A record whose owner died before starting the
process is reported as ``never started``.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Protocol

from orchestrator.agents import callers, process_identity
from orchestrator.agents.launchers.process_marks import LAUNCHER, TAG
from orchestrator.agents.launchers.selection import Launchers
from orchestrator.agents.stream_log import TAIL, Result, last_output, result_of
from orchestrator.errors import AgentEnded, LaunchFailed, UnknownAgentKind
from orchestrator.observer import Observer
from orchestrator.rules import agents
from orchestrator.rules.agents import ConfirmAgent
from orchestrator.rules.draft import extra_of
from orchestrator.settings import AgentKind
from registry_api import Agent, RegistryStore, Task, transact
from registry_api.errors import InvalidInput, Unavailable
from registry_api.plugins import Launch, Prepared, Stopped
from registry_api.workspace import (
    IN_PROJECT,
    STATE_DIR,
    expand_folder,
    instance_of,
    make_state_folder,
    place_of,
    public,
    replace_file,
)
from registry_api.workspace import safe_paths as inside

__all__ = [
    "SERVER",
    "Deployment",
    "Ended",
    "Endpoint",
    "Order",
    "client_config",
    "launcher_of",
    "process_of",
    "public_settings",
    "working_directory",
]

# -P: a folder of that name in the working directory must not be imported instead.
_MODULE = ("-P", "-m", "orchestrator")
SERVER = "orchestrator"  # the server's name in the configuration of agents
_CARE = 60.0  # seconds after an agent's last sign of life in which its owner may record its exit
# The agents that this process starts or waits for, of all its orchestrators.
_OURS = set[tuple[str, str]]()
_NEVER = "never started"
_LAST = 4000  # bytes at the end of a log, of which a record keeps less
_NAME = re.compile(r"\{(\w+)\}")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,127}", re.ASCII)
_OWN = (
    *("REGISTRY_TASK_ID", "REGISTRY_AGENT_ID", "REGISTRY_INSTANCE", callers.SECRET),
    *("REGISTRY_ORCHESTRATOR_URL", "REGISTRY_ORCHESTRATOR_TOKEN"),
)
# What an agent's server needs from the agent's environment; many clients pass on nothing.
_PROOF = ("REGISTRY_TASK_ID", "REGISTRY_AGENT_ID", callers.SECRET)
_NOT_SETTINGS = {*_OWN, "REGISTRY_WORKSPACE", TAG, LAUNCHER}


class Ended(Protocol):
    """A callback for the end of an agent's process."""

    def __call__(self, task_id: str, agent_id: str, code: int) -> None:
        """Take the exit code ``code``, negative for a signal."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """The address of a server over HTTP, for the agents that it deploys."""

    url: str
    token: str


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

        def gone(code: int) -> None:
            try:
                ended(task_id, agent_id, code)
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
                launcher=self._launchers.name,
                session=getattr(prepared, "session", None),
                attach=tuple(getattr(prepared, "attach", ())),
                reservation=agents.reservation_of(agent),
            )
            transact(self._store, task_id, lambda s: agents.confirm(s, confirmed), actor="deploy")
            prepared.go()
            self._observer.started(self._launchers.name)
        except BaseException as error:
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
            return "alive"
        if not isinstance(owner, str):
            return "dead" if identity else "external"
        if not process_identity.is_here(owner):
            return "elsewhere"
        if (
            identity is not None
            and not process_identity.of_earlier_boot(owner)
            and self._is_being_noted(agent)
        ):
            return "ending"
        if self._cared_for(agent, owner):
            return "ending" if identity else "starting"
        return "dead" if identity else _NEVER

    def exit_code(self, agent: Agent) -> int | None:
        """Return the exit code of the agent's process, negative for a signal; None if it was not
        recorded.
        """
        with suppress(OSError, ValueError, Unavailable):
            return int(inside.read_tail(*self._exit_of(agent), limit=16)[0])
        return None

    def prompt(self, agent: Agent) -> str | None:
        """Return the text that the agent's program read, None if it is gone."""
        name = f"agent_prompt_{agent.agent_id}.txt"
        for place in ((name,), (inside.ARCHIVE, name)):
            with suppress(OSError, Unavailable):
                fd = inside.open_file(self._workspace, agent.task_id, *place, flags=os.O_RDONLY)
                with os.fdopen(fd, "rb") as file:
                    return file.read().decode()
        return None

    def result(self, agent: Agent) -> Result | None:
        """Return what the agent's program said of its end in its log, None if nothing."""
        return result_of(self._tail(agent, f"{agent.agent_id}_stream.jsonl", TAIL))

    def last_output(self, agent: Agent) -> str | None:
        """Return the end of the agent's error log, else of its log; without secrets."""
        names = (f"{agent.agent_id}_stderr.log", f"{agent.agent_id}_stream.jsonl")
        return last_output(self._tail(agent, name, _LAST) for name in names)

    def _tail(self, agent: Agent, name: str, limit: int) -> bytes:
        with suppress(OSError, Unavailable):
            return inside.read_log(self._workspace, agent.task_id, name, limit=limit)[0]
        return b""

    def _is_being_noted(self, agent: Agent) -> bool:
        """Whether the process that waits for the agent is still there to record the exit code."""
        try:
            fd = inside.open_file(*self._exit_of(agent), flags=os.O_RDONLY)
        except (OSError, Unavailable):
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    def _exit_of(self, agent: Agent) -> tuple[Path, str, str, str]:
        return self._workspace, agent.task_id, *_exit_file(agent.agent_id)

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
        folder = self._workspace, task_id
        values = {
            "model": order.model,
            "effort": order.effort,
            "workspace": str(self._workspace),
            "task_id": task_id,
            "agent_id": agent_id,
            **self._reached_by(order),
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
        inherited = {k: v for k, v in os.environ.items() if k not in _OWN}
        names = [
            (f"agent_prompt_{agent_id}.txt",),
            ("logs", f"{agent_id}_stream.jsonl"),
            ("logs", f"{agent_id}_stderr.log"),
        ]
        paths = [inside.task_file(*folder, *name) for name in names]
        with ExitStack() as opened:

            def held(fd: int) -> int:
                opened.callback(os.close, fd)
                return fd

            text = held(_opened_anew(*folder, *names[0]))
            with os.fdopen(os.dup(text), "wb") as file:
                file.write(prompt.encode())
            os.lseek(text, 0, os.SEEK_SET)
            log, errors = (
                held(inside.open_file(*folder, *name, flags=inside.APPEND)) for name in names[1:]
            )
            exit_file = held(_opened_anew(*folder, *_exit_file(agent_id)))
            cwd = held(
                os.open(order.cwd, os.O_RDONLY | os.O_DIRECTORY)
                if order.cwd
                else inside.open_folder(*folder)
            )
            yield Launch(
                task_id=task_id,
                agent_id=agent_id,
                argv=_filled(order.argv, values),
                files=(text, log, errors, cwd),
                cwd=order.cwd or self._workspace / task_id,
                prompt=paths[0],
                log=paths[1],
                errors=paths[2],
                environment={**inherited, **order.environment, **mine},
                exit_file=exit_file,
            )

    def _reached_by(self, order: Order) -> dict[str, str]:
        """Return how an agent reaches the orchestrator: at its endpoint, or through a server that
        the agent's client starts on the workspace.
        """
        args = [*_MODULE, "serve", "--workspace", str(self._workspace), "--agent"]
        # One for each transport: servers over both may deploy agents of one workspace.
        name = "mcp.json" if self._endpoint is None else "mcp-http.json"
        config = self._workspace / STATE_DIR / name
        if any("{mcp_config}" in part for part in _flat(order.argv)):
            if self._endpoint is not None:
                of_its_own = replace(
                    self._endpoint, token=_reference("REGISTRY_ORCHESTRATOR_TOKEN")
                )
                server = client_config(self._workspace, of_its_own)
            else:
                env = public_settings() | {name: _reference(name) for name in _PROOF}
                server = {"command": sys.executable, "args": args, "env": env}
            text = json.dumps({"mcpServers": {SERVER: server}}, indent=2).encode()
            make_state_folder(config.parent)
            if not config.exists() or config.read_bytes() != text:
                replace_file(config, text, aside=config.with_name(f"mcp.{uuid.uuid4().hex}"))
        return {
            "mcp_config": str(config),
            "mcp_command": json.dumps(sys.executable),
            "mcp_args": json.dumps(args),
            "mcp_env": _inline_table(public_settings()),
            "mcp_env_vars": json.dumps(_PROOF),
        }


def _reference(name: str) -> str:
    """Return a reference that an agent's client fills in from its environment.

    So no file contains a secret.
    """
    return f"${{{name}}}"


def _opened_anew(workspace: Path, task_id: str, *parts: str) -> int:
    """Open a new file; one left by an owner that died during a start is removed first."""
    try:
        return inside.open_file(workspace, task_id, *parts, flags=inside.NEW)
    except Unavailable as error:
        if not isinstance(error.__cause__, FileExistsError):
            raise
    inside.task_file(workspace, task_id, *parts).unlink(missing_ok=True)
    return inside.open_file(workspace, task_id, *parts, flags=inside.NEW)


def _exit_file(agent_id: str) -> tuple[str, str]:
    return "logs", f"{agent_id}_exit"


def client_config(workspace: Path, endpoint: Endpoint | None) -> dict[str, object]:
    """Return an MCP client's configuration for a workspace, in the format of most clients."""
    if endpoint is None:
        args = [*_MODULE, "serve", "--workspace", str(workspace)]
        given = public_settings()
        return {"command": sys.executable, "args": args, **({"env": given} if given else {})}
    bearer = f"Bearer {endpoint.token}"
    return {"type": "http", "url": endpoint.url, "headers": {"Authorization": bearer}}


def public_settings() -> dict[str, str]:
    """Return the settings from this process's environment, for the server that an agent starts.

    Without them that server would use another store, and most clients pass on nothing of their
    environment. Values with credentials are left out, since the result is written to files and
    command lines: that server inherits them, or is refused with a message that says what to do,
    unless the URL names a passfile.
    """
    ours = ((k, v) for k, v in os.environ.items() if k.startswith("REGISTRY_"))
    return {k: v for k, v in sorted(ours) if k not in _NOT_SETTINGS and public(v) == v}


def _inline_table(values: Mapping[str, str]) -> str:
    """Return values as TOML in one line; a JSON string is a TOML string."""
    return "{" + ", ".join(f"{k} = {json.dumps(v)}" for k, v in values.items()) + "}"


def process_of(agent: Agent) -> str | None:
    """Return the identity of an agent's process, None before it is confirmed."""
    identity = extra_of(agent).get("process")
    return identity if isinstance(identity, str) else None


def launcher_of(agent: Agent) -> str:
    """Return the name of the launcher that started an agent; version 0.1 had only ``process``."""
    name = extra_of(agent).get("launcher")
    return name if isinstance(name, str) else "process"


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
