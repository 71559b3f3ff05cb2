"""Launch small Python programs with a launcher that is named as in the settings."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from registry_api import load_plugins
from registry_api.plugins import Launch, Launcher, LauncherFactory, Prepared
from registry_api.workspace import STATE_DIR, instance_of

__all__ = ["TASK", "Started", "launcher_called", "prepared"]

TASK = "TASK-launched"


def launcher_called(name: str) -> Launcher:
    """Return a new launcher; raises KeyError if no plugin provides it."""
    found: dict[str, LauncherFactory] = {}

    def register(offered: str, factory: LauncherFactory) -> None:
        found[offered] = factory

    load_plugins().manager.hook.registry_register_launchers(register=register)
    return found[name]()


@dataclass(slots=True)
class Started:
    """A launched program; ``codes`` are the exit codes that were told."""

    folder: Path
    agent_id: str
    waiting: Prepared
    exit_file: Path
    codes: list[int | None] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def identity(self) -> str:
        """The process identity."""
        return self.waiting.identity

    @property
    def output(self) -> str:
        """What the program has printed."""
        return (self.folder / f"{self.agent_id}.log").read_text()

    @property
    def errors(self) -> str:
        """What the program has printed on standard error."""
        return (self.folder / f"{self.agent_id}.err").read_text()


@contextmanager
def _files(folder: Path, agent_id: str, prompt: bytes) -> Iterator[tuple[list[int], int]]:
    (folder / f"{agent_id}.txt").write_bytes(prompt)
    names = (f"{agent_id}.log", f"{agent_id}.err", f"{agent_id}.exit")
    opened = [os.open(folder / f"{agent_id}.txt", os.O_RDONLY)]
    append = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    opened += [os.open(folder / name, append, 0o600) for name in names[:2]]
    opened.append(os.open(folder, os.O_RDONLY | os.O_DIRECTORY))
    opened.append(os.open(folder / names[2], os.O_RDWR | os.O_CREAT, 0o600))
    try:
        yield opened[:4], opened[4]
    finally:
        for descriptor in opened:
            os.close(descriptor)


def prepared(
    launcher: Launcher,
    folder: Path,
    code: str,
    *,
    agent_id: str = "agent-1",
    prompt: bytes = b"",
    argv: tuple[str, ...] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Started:
    """Prepare a Python program as the agent of a workspace, as the orchestrator does."""
    codes: list[int | None] = []
    ended = threading.Event()

    def told(code: int | None) -> None:
        codes.append(code)
        ended.set()

    state = folder / STATE_DIR
    state.mkdir(mode=0o700, exist_ok=True)
    where = {"REGISTRY_WORKSPACE": str(folder), "REGISTRY_INSTANCE": instance_of(state)}
    who = {"REGISTRY_TASK_ID": TASK, "REGISTRY_AGENT_ID": agent_id}
    with _files(folder, agent_id, prompt) as (files, exit_file):
        launch = Launch(
            task_id=TASK,
            agent_id=agent_id,
            argv=argv or (sys.executable, "-c", code),
            files=(files[0], files[1], files[2], files[3]),
            cwd=folder,
            prompt=folder / f"{agent_id}.txt",
            log=folder / f"{agent_id}.log",
            errors=folder / f"{agent_id}.err",
            environment={"PATH": os.environ["PATH"], **where, **who, **(environment or {})},
            exit_file=exit_file,
        )
        waiting = launcher.prepare(launch, told)
    return Started(
        folder=folder,
        agent_id=agent_id,
        waiting=waiting,
        exit_file=folder / f"{agent_id}.exit",
        codes=codes,
        ended=ended,
    )


def main() -> None:
    """Prepare a program, start it if told to, print its identity and wait to be killed."""
    name, folder, code, go = sys.argv[1:]
    started = prepared(launcher_called(name), Path(folder), code)
    if go == "go":
        started.waiting.go()
    print(started.identity, flush=True)  # noqa: T201  (read by the test)
    sys.stdin.read()


if __name__ == "__main__":
    main()
