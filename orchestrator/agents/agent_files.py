"""The files of an agent below its task's folder: prompt, log, error log, and exit code."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from orchestrator.agents.stream_log import TAIL, Result, last_output, result_of
from registry_api import Agent
from registry_api.errors import Unavailable
from registry_api.workspace import safe_paths as inside

__all__ = ["AgentFiles", "Opened", "errors_name", "exit_name", "log_name", "prompt_name"]

_LAST = 65_536  # bytes at the end of a log, of which a record keeps less: no key is cut


def prompt_name(agent_id: str) -> str:
    """Return the name of the file that the agent's program reads, in its task's folder."""
    return f"agent_prompt_{agent_id}.txt"


def log_name(agent_id: str) -> str:
    """Return the name of the agent's log, in ``logs`` or ``archive``; so for the next two."""
    return f"{agent_id}_stream.jsonl"


def errors_name(agent_id: str) -> str:
    """Return the name of the agent's error log."""
    return f"{agent_id}_stderr.log"


def exit_name(agent_id: str) -> str:
    """Return the name of the file with the agent's exit code."""
    return f"{agent_id}_exit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """The open files of an agent that is started, and their paths."""

    prompt: int
    log: int
    errors: int
    exit_file: int
    prompt_path: Path
    log_path: Path
    errors_path: Path


class AgentFiles:
    """The files of the agents of one workspace; no path leads out of it by a link."""

    def __init__(self, workspace: Path) -> None:
        self._workspace = workspace

    @contextmanager
    def opened(self, task_id: str, agent_id: str, prompt: str) -> Iterator[Opened]:
        """Write the prompt and open the files of an agent; they are closed at the end."""
        task = self._workspace, task_id
        log, errors = (inside.LOGS, log_name(agent_id)), (inside.LOGS, errors_name(agent_id))
        with ExitStack() as stack:

            def held(fd: int) -> int:
                stack.callback(os.close, fd)
                return fd

            text = held(_written_whole(*task, prompt_name(agent_id), prompt.encode()))
            yield Opened(
                prompt=text,
                log=held(inside.open_file(*task, *log, flags=inside.APPEND)),
                errors=held(inside.open_file(*task, *errors, flags=inside.APPEND)),
                exit_file=held(_opened_anew(*task, inside.LOGS, exit_name(agent_id))),
                prompt_path=inside.task_file(*task, prompt_name(agent_id)),
                log_path=inside.task_file(*task, *log),
                errors_path=inside.task_file(*task, *errors),
            )

    def prompt(self, agent: Agent) -> str | None:
        """Return the text that the agent's program read, None if it is gone."""
        name = prompt_name(agent.agent_id)
        for place in ((name,), (inside.ARCHIVE, name)):
            with suppress(OSError, ValueError, Unavailable):
                fd = inside.open_file(self._workspace, agent.task_id, *place, flags=os.O_RDONLY)
                with os.fdopen(fd, "rb") as file:
                    return file.read().decode()
        return None

    def result(self, agent: Agent) -> Result | None:
        """Return what the agent's program said of its end in its log, None if nothing."""
        return result_of(self._tail(agent, log_name(agent.agent_id), TAIL))

    def last_output(self, agent: Agent) -> str | None:
        """Return the end of the agent's error log, else of its log; without secrets."""
        names = errors_name(agent.agent_id), log_name(agent.agent_id)
        return last_output(self._tail(agent, name, _LAST) for name in names)

    def exit_code(self, agent: Agent) -> int | None:
        """Return the exit code of the agent's process, negative for a signal.

        None: it was not recorded.
        """
        with suppress(OSError, ValueError, Unavailable):
            return int(inside.read_tail(*self._exit_of(agent), limit=16)[0])
        return None

    def is_being_noted(self, agent: Agent) -> bool:
        """Return whether the process that waits for the agent is there to record the exit code."""
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
        return self._workspace, agent.task_id, inside.LOGS, exit_name(agent.agent_id)

    def _tail(self, agent: Agent, name: str, limit: int) -> bytes:
        with suppress(OSError, Unavailable):
            return inside.read_log(self._workspace, agent.task_id, name, limit=limit)[0]
        return b""


def _written_whole(workspace: Path, task_id: str, name: str, text: bytes) -> int:
    """Write a file that is whole or not there, whenever the writer dies; returns a descriptor of
    its beginning.
    """
    aside = f"{name}.new"
    fd = _opened_anew(workspace, task_id, aside)
    try:
        with os.fdopen(os.dup(fd), "wb") as file:
            file.write(text)
        folder = inside.open_parent(workspace, task_id, name)
        try:
            os.rename(aside, name, src_dir_fd=folder, dst_dir_fd=folder)
        finally:
            os.close(folder)
        os.lseek(fd, 0, os.SEEK_SET)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _opened_anew(workspace: Path, task_id: str, *parts: str) -> int:
    """Open a new file; one left by an owner that died during a start is removed first."""
    try:
        return inside.open_file(workspace, task_id, *parts, flags=inside.NEW)
    except Unavailable as error:
        if not isinstance(error.__cause__, FileExistsError):
            raise
    inside.task_file(workspace, task_id, *parts).unlink(missing_ok=True)
    return inside.open_file(workspace, task_id, *parts, flags=inside.NEW)
