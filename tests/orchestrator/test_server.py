"""The server as a client sees it: tools, errors, resources, prompts, and access."""

import asyncio
import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import httpx2
import psutil
import pytest
from mcp import Client
from mcp.shared.exceptions import MCPError

from orchestrator.agents.client_config import client_config
from orchestrator.cli import main
from orchestrator.mcp.arguments import LARGEST, LONGEST
from orchestrator.mcp.server import build_server
from orchestrator.mcp.tools import Tools
from orchestrator.settings import AgentKind
from tests.orchestrator import conducting

INITIALIZE = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "test", "version": "1"},
}
ISSUED = [
    *("create_task", "deploy_agent", "spawn_child_agent", "get_task_status", "list_tasks"),
    *("get_agent_output", "kill_agent", "update_agent_progress", "report_agent_finding"),
    *("get_task_findings", "get_phase_status", "check_phase_progress", "submit_phase_for_review"),
    *("mark_revision_ready", "submit_review_verdict", "submit_critique", "get_review_status"),
    *("abort_stalled_review", "approve_phase_review", "get_phase_handover", "get_task_context"),
    *("get_health_status", "trigger_health_scan", "cancel_task", "wait_for"),
]


def asked(play, question):
    """Run a question against the server of a Play."""

    async def run():
        async with Client(build_server(play.service)) as client:
            return await question(client)

    return asyncio.run(run())


def test_every_tool_is_there_and_says_what_it_does(play):
    """Every tool has a title, typed input and output and a description of each parameter, and the
    list costs at most 6,000 tokens of four characters: every client that lists the tools pays for
    each word."""
    listed = asked(play, lambda c: c.list_tools())
    tools = listed.tools
    assert [t.name for t in tools] == ISSUED
    assert len(listed.model_dump_json(by_alias=True, exclude_none=True)) <= 6_000 * 4
    for tool in tools:
        assert tool.title, tool.name
        assert tool.description, tool.name
        assert tool.output_schema["properties"], tool.name
        for name, schema in tool.input_schema["properties"].items():
            assert schema.get("description"), (tool.name, name)
    shown = json.dumps([t.input_schema for t in tools])
    assert '"title": "' not in shown
    assert "$ref" not in shown
    assert "{default_kind}" not in shown


def test_tools_say_what_they_do_to_the_registry(play):
    """Tools that only read, end something or can be repeated are annotated so: a client may call a
    reading tool without asking, and must ask before one that ends something."""
    tools = {t.name: t.annotations for t in asked(play, lambda c: c.list_tools()).tools}
    reads = {name for name, said in tools.items() if said.read_only_hint}
    assert reads == {
        *(name for name in ISSUED if name.startswith(("get_", "list_"))),
        *("check_phase_progress", "wait_for"),
    }
    ends = {
        name for name, said in tools.items() if not said.read_only_hint and said.destructive_hint
    }
    assert ends == {
        *("kill_agent", "abort_stalled_review", "approve_phase_review", "trigger_health_scan"),
        "cancel_task",
    }
    sets = {name for name, said in tools.items() if said.idempotent_hint}
    assert sets == {
        *("submit_phase_for_review", "mark_revision_ready", "submit_review_verdict"),
        "submit_critique",
    }


def test_possible_values_are_listed(opened):
    """Input schemas list the statuses, the configured kinds and the rule for an agent's type."""
    kinds = {"cheap": AgentKind(argv=("true",))}
    play = opened(kinds=kinds, default_kind="cheap", max_agents=7)
    tools = {t.name: t.input_schema for t in asked(play, lambda c: c.list_tools()).tools}
    deploy = tools["deploy_agent"]["properties"]
    assert deploy["kind"]["enum"] == ["cheap", "claude", "codex", "external", "gemini"]
    assert "cheap" in deploy["kind"]["description"]
    assert re.fullmatch(deploy["agent_type"]["pattern"], "builder-1")
    assert "7" in tools["create_task"]["properties"]["max_agents"]["description"]
    assert set(tools["update_agent_progress"]["properties"]["status"]["enum"]) == {
        *("running", "working", "blocked", "reviewing", "completed", "failed", "error"),
    }
    assert set(tools["list_tasks"]["properties"]["status"]["enum"]) >= {"ACTIVE", "COMPLETED"}

    async def question(client):
        return json.loads((await client.read_resource("orchestrator://limits")).contents[0].text)

    limits = asked(play, question)
    assert limits["kinds"] == deploy["kind"]["enum"]
    assert (limits["max_agents"], limits["default_kind"]) == (7, "cheap")


def test_answers_are_small_and_name_the_next_step(play):
    """The text of an answer is the structured answer, without empty fields."""

    async def question(client):
        made = await client.call_tool("create_task", {"description": "x" * 5000})
        listed = await client.call_tool("list_tasks", {"limit": 1})
        return made, listed

    made, listed = asked(play, question)
    assert json.loads(made.content[0].text) == made.structured_content
    assert made.structured_content["next_step"] == "deploy_agent"
    assert len(made.content[0].text) < 500
    assert "next_cursor" not in listed.structured_content


def test_lists_are_paged(play):
    """Paging with the next cursor lists each task once."""
    for _ in range(5):
        play.create()

    async def question(client):
        seen, cursor = [], ""
        while cursor is not None:
            page = await conducting.ask(client, "list_tasks", limit=2, cursor=cursor)
            seen += [t["task_id"] for t in page["tasks"]]
            cursor = page.get("next_cursor")
        return seen

    seen = asked(play, question)
    assert len(seen) == len(set(seen)) == 5


@pytest.mark.parametrize(
    ("tool", "arguments", "code"),
    [
        ("get_task_status", {"task_id": "TASK-none"}, "task_not_found"),
        ("get_task_status", {"task_id": "../.."}, "invalid_input"),
        ("get_task_status", {}, "invalid_input"),
        ("create_task", {"description": "x", "phases": [{"nom": "y"}]}, "invalid_input"),
        ("create_task", {"description": "x", "phases": "many"}, "invalid_input"),
        ("create_task", {"description": "x", "client_cwd": "relative"}, "invalid_input"),
        ("create_task", {"description": "x", "descripton": "y"}, "invalid_input"),
        ("list_tasks", {"cursor": "zzz"}, "invalid_query"),
        ("get_task_findings", {"task_id": "T", "since": "2026-01-01T00:00:00"}, "invalid_input"),
    ],
)
def test_refusals_have_a_code_and_a_next_step(play, tool, arguments, code):
    """A refusal is a tool error with a code and a next step, never a traceback."""
    refusal = asked(play, lambda c: conducting.refused(c, tool, **arguments))
    assert refusal["code"] == code
    assert refusal["next_step"]


def test_lists_that_clients_send_as_text(play):
    """A list that a client sends as JSON in a string is read as the list."""
    phases = json.dumps([{"name": "a"}, {"name": "b"}])
    task = asked(
        play,
        lambda c: conducting.ask(c, "create_task", description='{"not": "json"}', phases=phases),
    )
    assert [p["name"] for p in task["phases"]] == ["a", "b"]
    assert task["description"] == '{"not": "json"}'


def test_resources(play):
    """The four resources of tasks can be read; an unknown one is an error."""
    play.create("only")
    agent = play.deploy()
    play.report(agent, message="half-way")
    play.add_finding(agent, "a leak")
    at = f"task://{play.task_id}"

    async def question(client):
        templates = (await client.list_resource_templates()).resource_templates
        texts = [
            (await client.read_resource(uri)).contents[0].text
            for uri in ("tasks://list", at, f"{at}/progress", f"{at}/findings")
        ]
        for uri in ("task://TASK-none", "task://..%2F..%2Fetc/progress"):
            with pytest.raises(MCPError):
                await client.read_resource(uri)
        return {t.uri_template for t in templates}, texts

    templates, (listed, task, progress, found) = asked(play, question)
    assert templates == {
        "task://{task_id}",
        "task://{task_id}/progress",
        "task://{task_id}/findings",
    }
    assert json.loads(listed)["tasks"][0]["task_id"] == play.task_id
    assert json.loads(task)["status"] == "ACTIVE"
    assert f"{agent} working 50% half-way" in progress
    assert json.loads(found)["findings"][0]["message"] == "a leak"


def test_prompts_name_tools_that_exist(play):
    """The prompts for a conductor, a worker and a reviewer name only existing tools."""

    async def question(client):
        prompts = (await client.list_prompts()).prompts
        said = {}
        for prompt in prompts:
            given = {a.name: "x-1" for a in prompt.arguments or []}
            result = await client.get_prompt(prompt.name, given)
            said[prompt.name] = result.messages[0].content.text
        return said

    said = asked(play, question)
    assert set(said) == {"conductor", "worker", "reviewer"}
    for text in said.values():
        assert set(re.findall(r"[a-z]+(?:_[a-z]+)+", text)) & set(vars(Tools))
    every = " ".join(said.values())
    told = set(re.findall(r"\b[a-z]+_[a-z_]+\b", every))
    assert told <= {*ISSUED, "needs_revision"}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A server over HTTP as a process: its URL and token."""
    workspace = tmp_path_factory.mktemp("served")
    conducting.configure(workspace, default_kind="external")
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestrator", "serve", "--http", "127.0.0.1:0"],
        env=conducting.environment(workspace),
        stdout=subprocess.PIPE,
        text=True,
    )
    url = process.stdout.readline().strip()
    path = workspace / ".registry" / "token"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    yield url, path.read_text()
    process.terminate()
    process.communicate()


def post(url, headers, body="{}"):
    standard = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
    return httpx2.post(url, headers=standard | headers, content=body, timeout=20)


@pytest.mark.parametrize("bearer", [None, "Bearer x", "Basic {}", "bearer{}", "{}"])
def test_nobody_comes_in_without_the_token(served, bearer):
    """Without the token every existing path answers 401."""
    url, token = served
    headers = {} if bearer is None else {"authorization": bearer.format(token)}
    for method in ("POST", "GET", "DELETE"):
        answer = httpx2.request(method, url, headers=headers, timeout=20)
        assert answer.status_code == 401, (method, answer.text)
    host = url.removesuffix("/mcp")
    for path in ("/", "/docs", "/.well-known/oauth-protected-resource", "/mcp/x"):
        assert httpx2.get(host + path, timeout=20).status_code in {401, 404}


@pytest.mark.parametrize(
    ("header", "value", "code"),
    [
        ("host", "evil.example", 421),
        ("host", "evil.example:80", 421),
        ("host", "127.0.0.1.evil.example", 421),
        ("origin", "http://evil.example", 403),
        ("origin", "null", 403),
        ("origin", "https://127.0.0.1", 403),
    ],
)
def test_foreign_hosts_and_origins_are_refused(served, header, value, code):
    """A web page cannot reach the server through a host name of its own."""
    url, token = served
    answer = post(url, {"authorization": f"Bearer {token}", header: value})
    assert answer.status_code == code


def test_large_bodies_are_refused(served):
    """The longest text of a tool is accepted however it is escaped; a larger body is refused."""
    url, token = served
    bearer = {"authorization": f"Bearer {token}"}
    longest = json.dumps({"x": "\U0001f600" * LONGEST})
    assert post(url, bearer, longest).status_code == 400  # no message, but read
    answer = post(url, bearer, json.dumps({"x": "y" * LARGEST}))
    assert answer.status_code == 413
    assert str(LARGEST) in answer.text


def test_a_stream_that_is_resumed_is_a_new_one(served):
    """A client that resumes a stream after an event id gets a new stream, since no events are kept;
    the transport once answered 500."""
    url, token = served
    bearer = {"authorization": f"Bearer {token}"}
    hello = {"jsonrpc": "2.0", "id": 1, "method": "initialize"} | {"params": INITIALIZE}
    begun = post(url, bearer, json.dumps(hello))
    session = {"mcp-session-id": begun.headers["mcp-session-id"], "last-event-id": "7"}
    headers = bearer | session | {"accept": "text/event-stream"}
    with httpx2.stream("GET", url, headers=headers, timeout=20) as answer:
        assert answer.status_code == 200


def test_an_open_address_must_be_asked_for(tmp_path, capsys):
    """An address open to other hosts is refused without --remote, and so is an invalid one."""
    place = ["--workspace", str(tmp_path)]
    for address in ("0.0.0.0:8766", "[::]:8766", "example.org:1", "127.0.0.1", "127.0.0.1:x"):
        assert main(["serve", "--http", address, *place]) == 2
        assert capsys.readouterr().err.startswith("usage: --http")


def test_a_server_over_http_is_for_nobody_alone(tmp_path, capsys):
    """--agent is refused over HTTP, where each caller's token identifies it."""
    place = ["--workspace", str(tmp_path)]
    assert main(["serve", "--agent", "--http", "127.0.0.1:0", *place]) == 2
    assert "--agent" in capsys.readouterr().err


def test_a_token_that_others_can_read_is_refused(tmp_path, capsys):
    """A token file that others can read is refused with the command that replaces it."""
    (tmp_path / ".registry").mkdir(mode=0o700)
    token = tmp_path / ".registry" / "token"
    token.write_text("x" * 40)
    token.chmod(0o644)
    assert main(["config", "--http", "http://127.0.0.1:1/mcp", "--workspace", str(tmp_path)]) == 1
    assert f"rm {token}" in capsys.readouterr().err


def test_config_prints_a_server_that_starts(tmp_path, capsys):
    """`config` prints the configuration of a server that starts."""
    conducting.configure(tmp_path, default_kind="external")
    assert main(["config", "--workspace", str(tmp_path)]) == 0
    server = json.loads(capsys.readouterr().out)["mcpServers"]["orchestrator"]

    async def question():
        env = conducting.environment(tmp_path)
        params = conducting.StdioServerParameters(**server | {"env": env})
        async with Client(params) as client:
            return await conducting.ask(client, "list_tasks")

    assert asyncio.run(question())["tasks"] == []
    assert Path(server["command"]) == Path(sys.executable)


def test_a_misspelt_argument_starts_nothing(play):
    """A misspelt argument is refused; it was once ignored, and a wrong kind of agent started."""
    play.create("only")
    of = {"task_id": play.task_id, "agent_type": "a", "prompt": "p", "kid": "cheap"}
    refusal = asked(play, lambda c: conducting.refused(c, "deploy_agent", **of))
    assert "has no argument kid" in refusal["message"]
    assert "kind" in refusal["next_step"]
    assert play.now.agents == ()


def test_a_server_of_an_agents_own_is_given_the_same_settings(tmp_path, monkeypatch):
    """The configuration of an agent's own server holds the settings, since its client may pass on
    no variables; it once worked on another store."""
    for name in [n for n in os.environ if n.startswith("REGISTRY_")]:
        monkeypatch.delenv(name)
    assert "env" not in client_config(tmp_path, None)
    given = {"REGISTRY_BACKEND": 'a"b', "REGISTRY_ORCHESTRATOR_MAX_AGENTS": "3"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("REGISTRY_AGENT_ID", "somebody")
    assert client_config(tmp_path, None)["env"] == given


def test_a_folder_of_our_name_does_not_take_our_place(tmp_path):
    """A package `orchestrator` in the working folder of a client or agent does not replace ours."""
    (tmp_path / "orchestrator").mkdir()
    (tmp_path / "orchestrator" / "__init__.py").write_text("raise SystemExit('theirs')")
    server = client_config(tmp_path, None)
    done = subprocess.run(
        [server["command"], *server["args"]],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("defalt_kind = 'x'", "defalt_kind: there is no such key"),
        ("[orchestrator.kinds.a]\nargs = []", "kinds.a.args: there is no such key"),
        ("[orchestrator.kinds.a]\nargv = 'cat -x'", "kinds.a.argv: it must be a list of strings"),
        ("[orchestrator.kinds.a]\nargv = []", "kind a has no argv"),
        ("[orchestrator.kinds.a]\nargv = ['x', '{modle}']", "unknown placeholder {modle}"),
        ("auto_review = 'perhaps'", "auto_review: it must be true or false"),
    ],
)
def test_settings_that_are_wrong(tmp_path, capsys, text, said):
    """A settings error names file, key, fault and valid values, without Python terms."""
    (tmp_path / "registry.toml").write_text(f"[orchestrator]\n{text}\n")
    assert main(["serve", "--workspace", str(tmp_path)]) == 1
    shown = capsys.readouterr().err
    assert said in shown
    assert "registry.toml" in shown
    assert not any(w in shown for w in ("tuple", "Extra inputs", "Value error", "pydantic"))


def test_the_reason_of_a_failed_agent_is_shown(opened, tmp_path):
    """The task, the phase and the output show why an agent failed, with the end of its standard
    error; once, nothing did."""
    code = "import sys; sys.exit('my api key is missing')"
    kinds = {"one": AgentKind(argv=(sys.executable, "-c", code), preamble=False)}
    play = opened("sqlite", kinds=kinds, default_kind="one").create("only")
    agent = play.deploy()
    while play.agent(agent).status == "running":
        os.sched_yield()
    output = play.reading.output(play.task_id, agent, max_bytes=100, before=None)
    assert output.errors == "my api key is missing\n"
    assert "exit code 1" in output.reason
    (ended,) = play.reading.task(play.task_id).agents_ended
    assert (ended.agent_id, "exit code 1" in ended.reason) == (agent, True)
    assert (
        play.reading.phase(play.task_id).failures[0].startswith(f"{agent}: ended with exit code 1")
    )


def test_sessions_that_are_left_end_and_leave_nothing(tmp_path):
    """Sessions that clients leave without a DELETE, two hundred at a time, end once they are idle,
    and the server's memory does not grow."""
    conducting.configure(tmp_path, default_kind="external")
    env = conducting.environment(tmp_path, REGISTRY_ORCHESTRATOR_SESSION_IDLE="1")
    hello = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": INITIALIZE})

    async def run():
        sizes, before = [], set(psutil.Process().children())
        async with conducting.served_over_http(env) as (url, token):
            (server,) = set(psutil.Process().children()) - before
            headers = {
                "authorization": f"Bearer {token}",
                "content-type": "application/json",
                "accept": "application/json, text/event-stream",
            }
            async with httpx2.AsyncClient(headers=headers, timeout=60) as client:
                for _ in range(4):
                    ids = []
                    for _ in range(200):
                        answer = await client.post(url, content=hello)
                        ids.append(answer.headers["mcp-session-id"])
                    assert len(set(ids)) == 200
                    for session in (ids[0], ids[-1]):
                        await gone(client, url, session)
                    sizes.append(server.memory_info().rss)
        return sizes

    first, *_, last = asyncio.run(run())
    assert last - first < 10 * 2**20, (first, last)


async def gone(client, url, session):
    """Wait until a session is unknown; each ping uses the session, so the pings are rare."""
    ping = json.dumps({"jsonrpc": "2.0", "id": 2, "method": "ping"})
    for _ in range(30):
        await asyncio.sleep(2)
        answer = await client.post(url, content=ping, headers={"mcp-session-id": session})
        if answer.status_code == 404:
            return
    raise AssertionError(f"session {session} is still there")
