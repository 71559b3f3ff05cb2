"""What every launcher must do, whatever it starts agents with."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from contract_tests.launchers import launching
from contract_tests.launchers.launching import TASK, Started, launcher_called, prepared
from registry_api.plugins import Launcher

WAIT = 60.0  # seconds for what another process does; most of it takes less than one
ECHO = "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read())"
FOREVER = "import time; print('up', flush=True); time.sleep(600)"
STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); " + FOREVER
# A child in a session of its own, one with an empty environment, and one with both.
FAMILY = (
    "import subprocess, sys\n"
    f"child = [sys.executable, '-c', {FOREVER!r}]\n"
    "subprocess.Popen(child, start_new_session=True)\n"
    "subprocess.Popen(child, env={})\n"
    "subprocess.Popen(child, env={}, start_new_session=True)\n"
) + FOREVER


def until(condition: Callable[[], object]) -> None:
    """Wait for what another process does."""
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def run(launcher: Launcher, folder: Path, code: str, **options: object) -> Started:
    """Start a program."""
    started = prepared(launcher, folder, code, **options)  # type: ignore[arg-type]
    started.waiting.go()
    return started


def up(launcher: Launcher, folder: Path, code: str = FOREVER, **options: object) -> Started:
    """Start a program that prints ``up``, and wait for that."""
    started = run(launcher, folder, code, **options)
    until(lambda: "up" in started.output)
    return started


@contextmanager
def another(name: str, folder: Path, code: str, *, go: bool) -> Iterator[subprocess.Popen[str]]:
    """Prepare the program in a process of its own, which is killed at the end."""
    process = subprocess.Popen(
        [sys.executable, launching.__file__, name, str(folder), code, "go" if go else "wait"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_the_prompt_arrives_byte_for_byte(launcher: Launcher, tmp_path: Path) -> None:
    """The prompt is the program's standard input, byte for byte, also one of four megabytes."""
    prompt = b"\x00\xff'\"$(touch x) `id` #{pane_id} %% \\ -rf\r\n" + os.urandom(4_000_000)
    started = run(launcher, tmp_path, ECHO, prompt=prompt)
    assert started.ended.wait(WAIT)
    assert (tmp_path / "agent-1.log").read_bytes() == prompt
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        ".registry",
        *(f"agent-1.{end}" for end in ("err", "exit", "log", "txt")),
    ]


def test_output_is_appended_to_the_logs(launcher: Launcher, tmp_path: Path) -> None:
    """Standard output and standard error go to the two logs, after what is there."""
    (tmp_path / "agent-1.log").write_text("before\n")
    code = "import sys; print('said'); print('wrong', file=sys.stderr)"
    started = run(launcher, tmp_path, code)
    assert started.ended.wait(WAIT)
    assert (started.output, started.errors) == ("before\nsaid\n", "wrong\n")


def test_nothing_runs_before_go(launcher: Launcher, tmp_path: Path) -> None:
    """A prepared program is alive and does not run; if it is cancelled it never does."""
    started = prepared(launcher, tmp_path, "print('ran')")
    assert launcher.alive(started.identity)
    time.sleep(0.3)
    assert started.output == ""
    started.waiting.cancel()
    assert started.ended.wait(WAIT)
    assert len(started.codes) == 1
    assert started.codes != [0]
    until(lambda: not launcher.alive(started.identity))
    assert started.output == ""


def test_a_prepared_program_ends_with_its_starter(
    launcher: Launcher, launcher_name: str, tmp_path: Path
) -> None:
    """If the orchestrator dies before ``go``, the waiting process ends and runs nothing."""
    with another(launcher_name, tmp_path, "print('ran')", go=False) as process:
        assert process.stdout is not None
        identity = process.stdout.readline().strip()
        assert launcher.alive(identity)
    until(lambda: not launcher.alive(identity))
    assert (tmp_path / "agent-1.log").read_text() == ""


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("pass", 0),
        ("raise SystemExit(3)", 3),
        ("import os; os.kill(os.getpid(), 9)", -9),
        ("import os; os.kill(os.getpid(), 15)", -15),
    ],
)
def test_the_exit_code_is_told_once(
    launcher: Launcher, tmp_path: Path, code: str, expected: int
) -> None:
    """The exit code is told once, as Popen has it, and stands in the exit file."""
    started = run(launcher, tmp_path, code)
    assert started.ended.wait(WAIT)
    until(lambda: not launcher.alive(started.identity))
    assert started.codes == [expected]
    assert int(started.exit_file.read_text()) == expected


def test_the_exit_file_is_locked_while_it_runs(launcher: Launcher, tmp_path: Path) -> None:
    """An exclusive lock on the exit file is held while the program runs, and released after."""

    def locked() -> bool:
        with started.exit_file.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    started = up(launcher, tmp_path)
    assert locked()
    launcher.stop([started.identity], grace=WAIT)
    until(lambda: not locked())
    assert started.exit_file.read_text().strip()


def test_a_missing_program_is_told(launcher: Launcher, tmp_path: Path) -> None:
    """A program that is not there: ``prepare`` raises OSError, or it ends with a code and says so
    in its error log.
    """
    try:
        started = run(launcher, tmp_path, "", argv=("no-such-program-here",))
    except OSError:
        return
    assert started.ended.wait(WAIT)
    (code,) = started.codes
    assert code is not None
    assert code > 0
    assert "no-such-program-here" in started.errors


def test_its_environment_and_folder(launcher: Launcher, tmp_path: Path) -> None:
    """The program gets the environment of the launch and nothing of the orchestrator's, and its
    working directory.
    """
    code = "import os; print(os.getcwd(), os.environ.get('MINE'), os.environ.get('THEIRS'))"
    os.environ["THEIRS"] = "leaked"
    try:
        started = run(launcher, tmp_path, code, environment={"MINE": "é'\" \n"})
    finally:
        del os.environ["THEIRS"]
    assert started.ended.wait(WAIT)
    assert started.output == f"{tmp_path} é'\" \n None\n"


def test_its_secret_is_on_no_command_line(launcher: Launcher, tmp_path: Path) -> None:
    """The secret of an agent is on the command line of no process."""
    secret = f"canary-{os.urandom(8).hex()}"
    up(launcher, tmp_path, environment={"REGISTRY_AGENT_SECRET": secret})
    lines = [" ".join(p.info["cmdline"] or ()) for p in psutil.process_iter(["cmdline"])]
    assert any(FOREVER in line for line in lines)
    assert not any(secret in line for line in lines)


def test_running_agents_are_found(launcher: Launcher, launcher_name: str, tmp_path: Path) -> None:
    """The agents of a workspace are found by another launcher object, those of another workspace
    are not.
    """
    place, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    place.mkdir()
    elsewhere.mkdir()
    started = [up(launcher, place, agent_id=f"agent-{n}") for n in range(3)]
    other = up(launcher, elsewhere)
    found = launcher_called(launcher_name).running(place)
    assert {(f.task_id, f.agent_id, f.identity, f.own) for f in found} == {
        (TASK, s.agent_id, s.identity, False) for s in started
    }
    launcher.stop([s.identity for s in (*started, other)], grace=0.0)
    assert launcher.running(place) == ()


@pytest.mark.parametrize("code", [FOREVER, STUBBORN], ids=["mild", "stubborn"])
def test_a_stopped_agent_is_gone(launcher: Launcher, tmp_path: Path, code: str) -> None:
    """``stop`` ends an agent, also one that ignores SIGTERM, and no other one."""
    kept, ended = up(launcher, tmp_path, agent_id="kept"), up(launcher, tmp_path, code)
    assert launcher.alive(ended.identity)
    launcher.stop([ended.identity], grace=0.5)
    assert not launcher.alive(ended.identity)
    assert launcher.alive(kept.identity)
    assert ended.ended.wait(WAIT)
    launcher.stop([ended.identity], grace=0.0)  # again: no error


def test_it_has_time_to_end(launcher: Launcher, tmp_path: Path) -> None:
    """An agent that is told to end may take its time, up to the grace."""
    code = (
        "import signal, sys, time\n"
        "signal.signal(15, lambda *_: (time.sleep(1), print('bye', flush=True), sys.exit(0)))\n"
    ) + FOREVER
    started = up(launcher, tmp_path, code)
    launcher.stop([started.identity], grace=WAIT)
    assert started.ended.wait(WAIT)
    assert started.output == "up\nbye\n"
    assert started.codes == [0]


def test_a_frozen_agent_is_alive_and_can_be_stopped(launcher: Launcher, tmp_path: Path) -> None:
    """An agent that was stopped by SIGSTOP is alive; ``stop`` lets it end by itself."""
    code = (
        "import signal, sys\n"
        "signal.signal(15, lambda *_: (print('bye', flush=True), sys.exit(0)))\n"
    ) + FOREVER
    started = up(launcher, tmp_path, code)
    pid = started.waiting.pid
    if pid is None:
        pytest.skip("its agents have no pid on this host")
    os.kill(pid, signal.SIGSTOP)
    assert launcher.alive(started.identity)
    launcher.stop([started.identity], grace=WAIT)
    assert started.ended.wait(WAIT)
    assert "bye" in started.output


def test_a_whole_family_is_stopped(launcher: Launcher, tmp_path: Path) -> None:
    """``stop`` ends all that an agent started, whatever session and environment they have."""
    started = run(launcher, tmp_path, FAMILY)
    until(lambda: started.output.count("up") == 4)
    pid = started.waiting.pid
    if pid is None:
        pytest.skip("its agents have no pid on this host")
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    assert len(family) == 4
    said = launcher.stop([started.identity], grace=WAIT)
    until(lambda: not any(p.is_running() and p.status() != "zombie" for p in family))
    for found in said or ():
        assert (found.signalled, found.killed, found.left) == (4, 0, ())


def test_agents_outlive_the_orchestrator(
    launcher: Launcher, launcher_name: str, tmp_path: Path
) -> None:
    """A started agent goes on when its orchestrator is killed; another one finds it, stops it, and
    reads its exit code.
    """
    with another(launcher_name, tmp_path, FOREVER, go=True) as process:
        assert process.stdout is not None
        identity = process.stdout.readline().strip()
        until(lambda: "up" in (tmp_path / "agent-1.log").read_text())
    assert [found.identity for found in launcher.running(tmp_path)] == [identity]
    assert launcher.alive(identity)
    launcher.stop([identity], grace=WAIT)
    assert not launcher.alive(identity)
    until(lambda: (tmp_path / "agent-1.exit").read_text() == "-15\n")


def test_many_at_once(launcher: Launcher, tmp_path: Path) -> None:
    """Agents can be started from many threads at once, each with an identity of its own."""
    with ThreadPoolExecutor(8) as pool:
        started = list(
            pool.map(lambda n: run(launcher, tmp_path, ECHO, agent_id=f"agent-{n}"), range(16))
        )
    assert all(one.ended.wait(WAIT) for one in started)
    assert [one.codes for one in started] == [[0]] * 16
    assert len({one.identity for one in started}) == 16


@pytest.mark.parametrize("identity", ["", "1:1", "0:5", "-5:1", "x:y", "99999999999:1", "2", "٣:1"])
def test_other_identities_are_nobody(launcher: Launcher, identity: str) -> None:
    """With an identity that it did not give nothing is alive and nothing is stopped."""
    assert not launcher.alive(identity)
    launcher.stop([identity], grace=0.0)


def test_a_reused_number_is_not_the_agent(launcher: Launcher, tmp_path: Path) -> None:
    """A process that has the number of an ended agent is neither alive for it nor stopped."""
    started = run(launcher, tmp_path, "pass")
    assert started.ended.wait(WAIT)
    until(lambda: not launcher.alive(started.identity))
    decoy = subprocess.Popen([sys.executable, "-c", FOREVER], stdout=subprocess.PIPE)
    assert decoy.stdout is not None
    decoy.stdout.readline()
    own, _, rest = started.identity.partition(":")
    if own != str(started.waiting.pid):
        pytest.skip("its identities do not begin with the pid")
    taken = f"{decoy.pid}:{rest}"
    assert not launcher.alive(taken)
    launcher.stop([taken], grace=0.0)
    assert decoy.poll() is None
    decoy.kill()
    decoy.communicate()
