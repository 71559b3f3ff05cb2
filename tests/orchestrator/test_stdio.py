"""The server on standard input and output, with input that no client of ours sends."""

import json
import signal
import subprocess
import sys

import pytest

from tests.orchestrator import conducting

HELLO = {
    "jsonrpc": "2.0",
    "id": "hello",
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}
LIST = b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}'
DEEP = b"[" * 5000 + b"]" * 5000


@pytest.fixture
def served(tmp_path):
    """A server as a process, with an open session."""
    conducting.configure(tmp_path, default_kind="external")
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestrator", "serve"],
        env=conducting.environment(tmp_path),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    say(process, json.dumps(HELLO).encode())
    assert heard(process)["id"] == "hello"
    say(process, b'{"jsonrpc":"2.0","method":"notifications/initialized"}')
    yield process
    process.kill()
    process.communicate()


def say(process, line):
    process.stdin.write(line + b"\n")
    process.stdin.flush()


def heard(process):
    return json.loads(process.stdout.readline())


@pytest.mark.parametrize(
    ("line", "code", "request_id"),
    [
        (b"nonsense", -32700, None),
        (b'{"jsonrpc":"2.0","id":7,"method":"tools/list"', -32700, 7),
        (b'{"jsonrpc":"2.0","id":7,"method":"ping","params":{"a":"\xff"}}', -32700, 7),
        (b'{"jsonrpc":"2.0","id":7,"method":"ping","params":{"a":"\\ud800"}}', -32700, 7),
        (b'{"jsonrpc":"2.0","id":"\\ud800","method":"ping"}', -32700, None),
        (b"[" + LIST + b"]", -32600, None),
        (b"7", -32600, None),
        (b'{"jsonrpc":"2.0","id":"q","method":"ping","params":{"a":' + DEEP + b"}}", -32600, "q"),
        (b'{"jsonrpc":"1.0","id":7,"method":"ping"}', -32600, 7),
        (b'{"jsonrpc":"2.0","id":7,"method":"ping","params":[1]}', -32600, 7),
        (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', -32600, None),
        (b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}', -32600, None),
    ],
)
def test_a_line_that_is_not_a_message_is_answered(served, line, code, request_id):
    """A line that is not a message gets an error, with its id if it can be found."""
    say(served, line)
    answer = heard(served)
    assert (answer["error"]["code"], answer["id"]) == (code, request_id)
    assert answer["error"]["message"]
    say(served, LIST)
    assert heard(served)["result"]["tools"]


def test_harmless_input_is_read(served):
    """A byte order mark, blank lines, an unexpected answer and a line in pieces are accepted."""
    say(served, b"")
    say(served, b'{"jsonrpc":"2.0","id":9,"result":{}}')
    say(served, b'{"jsonrpc":"2.0","id":9,"result":7}')
    say(served, b"\xef\xbb\xbf" + LIST)
    assert heard(served)["result"]["tools"]
    served.stdin.write(LIST[:20])
    served.stdin.flush()
    say(served, LIST[20:])
    assert heard(served)["result"]["tools"]


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("prompts/get", {"name": "nobody"}),
        ("prompts/get", {"name": "worker"}),
        ("prompts/get", {"name": "conductor", "arguments": {"gaol": "x"}}),
        ("resources/read", {"uri": "task://TASK-none"}),
    ],
)
def test_unknown_prompts_and_arguments_are_the_callers_fault(served, method, params):
    """An unknown prompt, argument or resource is error -32602, not an internal error."""
    say(served, json.dumps(HELLO | {"id": 3, "method": method, "params": params}).encode())
    assert heard(served)["error"]["code"] == -32602


def test_an_interrupt_ends_it(served):
    """An interrupt ends the server with 0 and nothing on standard error."""
    served.send_signal(signal.SIGINT)
    _, said = served.communicate(timeout=30)
    assert (served.returncode, said) == (0, b"")


def test_a_reader_that_goes_away_leaves_no_trace(served):
    """If its reader goes away, the server ends with 0 and no traceback."""
    served.stdout.close()
    say(served, LIST)
    assert (served.wait(timeout=30), served.stderr.read()) == (0, b"")


def test_input_from_a_file(tmp_path):
    """A file, which cannot be waited for, is read; each request is answered although the input has
    ended, and then the server ends with 0."""
    conducting.configure(tmp_path, default_kind="external")
    lines, ids = tmp_path / "lines", list(range(2, 22))
    calls = [
        {
            "jsonrpc": "2.0",
            "id": n,
            "method": "tools/call",
            "params": {"name": "create_task", "arguments": {"description": f"task {n}"}},
        }
        for n in ids
    ]
    requests = b"".join(json.dumps(call).encode() + b"\n" for call in calls)
    lines.write_bytes(json.dumps(HELLO).encode() + b"\n" + LIST.rstrip() + b"\n" + requests)
    with lines.open("rb") as file:
        done = subprocess.run(
            [sys.executable, "-m", "orchestrator", "serve"],
            env=conducting.environment(tmp_path),
            stdin=file,
            capture_output=True,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, b"")
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["id"] for answer in answers][:1] == ["hello"]
    assert sorted(answer["id"] for answer in answers[1:]) == [1, *ids]
    assert not any("error" in answer or answer["result"].get("isError") for answer in answers)


def test_an_agents_server_takes_its_secret_from_its_client(tmp_path):
    """With --agent and no secret it has no tool of a conductor, whatever its environment says."""
    conducting.configure(tmp_path, default_kind="external")
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestrator", "serve", "--agent"],
        env=conducting.environment(tmp_path),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    say(process, json.dumps(HELLO).encode())
    heard(process)
    say(process, LIST)
    names = {tool["name"] for tool in heard(process)["result"]["tools"]}
    assert "update_agent_progress" in names
    assert not names & {"create_task", "deploy_agent", "cancel_task"}
    process.communicate()
    assert process.returncode == 0
