"""Clients of other projects: the TypeScript SDK of two generations, the previous generation of the
Python SDK, and the conformance suite of the protocol's authors.

``tests/clients`` lists their versions; ``make test`` installs them.
"""

import asyncio
import json
import os
import re
import subprocess
import sys
from contextlib import asynccontextmanager
from itertools import product
from pathlib import Path

import httpx2
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import StreamingResponse
from starlette.routing import Route

from registry_api.workspace.server_cli import listening
from tests.orchestrator import conducting
from tests.proof import PROVING

ROOT = Path(__file__).parents[2]
CLIENTS = ROOT / "tests" / "clients"
VENV = Path(sys.prefix)
NODE, NPM, SDK_1 = VENV / "bin" / "node", VENV / "npm", VENV / "python_sdk_1"
SERVE = [sys.executable, "-m", "orchestrator", "serve"]
PATIENCE = 240  # seconds for a task; each of its agents is a process or two


def need(*paths):
    """Skip where a client could not be installed; in CI that is a failure."""
    missing = [path.name for path in paths if not path.exists()]
    if missing and os.environ.get("CI"):
        pytest.fail(f"not installed: {', '.join(missing)}; see tests/clients/install.sh")
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


CONDUCTORS = {
    "typescript-1": [str(NODE), str(CLIENTS / "conduct.mjs"), str(NPM), "1"],
    "typescript-2": [str(NODE), str(CLIENTS / "conduct.mjs"), str(NPM), "2"],
    "python-1": [sys.executable, "-P", str(CLIENTS / "python_sdk_1.py")],
}
NEEDS = {
    "typescript-1": NPM / "node_modules" / "@modelcontextprotocol" / "sdk",
    "typescript-2": NPM / "node_modules" / "@modelcontextprotocol" / "client",
    "python-1": SDK_1 / "mcp",
}


EVERY = list(product(CONDUCTORS, ["stdio", "http"]))
EACH_TIME = [("typescript-1", "stdio"), ("typescript-2", "http"), ("python-1", "http")]


@pytest.mark.parametrize(("client", "transport"), EVERY if PROVING else EACH_TIME)
def test_a_task_conducted_by_another_client(tmp_path, client, transport):
    """Another client conducts a task of two phases, with one rejected review and a revision, to
    COMPLETED, and can read every refusal. A client that checks answers against the output schema
    raised an error instead of showing a refusal."""
    need(NEEDS[client], *([NODE] if "typescript" in client else []))
    conducting.configure(tmp_path, reviewers=1)
    env = conducting.environment(tmp_path)

    async def run():
        if transport == "stdio":
            return await said(client, env, "stdio", *SERVE)
        async with conducting.served_over_http(env) as (url, token):
            return await said(client, env, "http", url, token)

    *refusals, end = asyncio.run(run())
    assert end["status"] == "COMPLETED"
    assert len(refusals) >= 4
    for refusal in refusals:
        assert refusal.keys() == {"tool", "code", "message", "next_step", "retryable"}
        assert all(refusal[key] for key in ("code", "message", "next_step"))


async def said(client, env, *where):
    """Run a client; return the objects that it printed, one per line."""
    if client == "python-1":
        # The server must not be started with it: it has packages of its own.
        where = (where[0], "env", "-u", "PYTHONPATH", *where[1:]) if where[0] == "stdio" else where
        env = env | {"PYTHONPATH": str(SDK_1)}
    process = await asyncio.create_subprocess_exec(
        *CONDUCTORS[client],
        *where,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), PATIENCE)
    except TimeoutError:
        process.kill()
        raise
    assert process.returncode == 0, (out, err)
    return [json.loads(line) for line in out.splitlines()]


@asynccontextmanager
async def with_the_token(url, token):
    """A proxy that adds the token, which the suite cannot send."""
    target = url.removesuffix("/mcp")
    ours = {"host", "content-length", "connection", "transfer-encoding"}
    async with httpx2.AsyncClient(timeout=None) as client:

        async def forward(request):
            headers = [h for h in request.headers.raw if h[0] != b"content-length"]
            headers.append((b"authorization", f"Bearer {token}".encode()))
            sent = client.build_request(
                request.method,
                target + request.url.path,
                headers=headers,
                content=await request.body(),
            )
            answer = await client.send(sent, stream=True)
            kept = {k: v for k, v in answer.headers.items() if k not in ours}
            return StreamingResponse(
                answer.aiter_raw(),
                status_code=answer.status_code,
                headers=kept,
                background=BackgroundTask(answer.aclose),
            )

        methods = ["GET", "POST", "DELETE"]
        app = Starlette(routes=[Route("/{path:path}", forward, methods=methods)])
        with listening("127.0.0.1", 0) as (taken, mine):
            server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
            serving = asyncio.create_task(server.serve(sockets=[taken]))
            try:
                yield f"{mine}/mcp"
            finally:
                server.should_exit = server.force_exit = True
                await serving


def test_the_docs_name_the_versions_that_are_tested():
    """docs/orchestrator.md names the versions that the lists pin."""
    text = (ROOT / "docs" / "orchestrator.md").read_text()
    for name in ("npm.txt", "python_sdk_1.txt"):
        for line in (CLIENTS / name).read_text().split():
            assert re.split("@|==", line)[-1] in text, line


def not_applying():
    """Return the scenarios that docs/orchestrator.md says do not apply, each with its reason."""
    text = (ROOT / "docs" / "orchestrator.md").read_text()
    rows = re.findall(r"^\| ((?:`[a-z0-9-]+`(?:, )?)+) \| [a-z].+ \|$", text, re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`([a-z0-9-]+)`", row)}


# The suite has no scenario for 2024-11-05, and no version for those of extensions and drafts.
VERSIONS = ("2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28", "")


def test_the_protocols_own_suite(tmp_path):
    """In each version exactly those scenarios fail for which the docs give a reason."""
    suite = NPM / "node_modules" / "@modelcontextprotocol" / "conformance"
    need(NODE, suite)
    conducting.configure(tmp_path, default_kind="external")
    env = conducting.environment(tmp_path)
    program = [str(NODE), str(NPM / "node_modules" / ".bin" / "conformance"), "server"]

    async def run(proxy, version):
        """Return what the suite says at the end: the result of each scenario of a version."""
        wanted = ["--spec-version", version] if version else []
        process = await asyncio.create_subprocess_exec(
            *program,
            "--url",
            proxy,
            "--suite",
            "all",
            *wanted,
            stdout=subprocess.PIPE,
            cwd=tmp_path,
        )
        out, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
        return out.decode().partition("=== SUMMARY ===")[2]

    async def run_all():
        async with (
            conducting.served_over_http(env) as (url, token),
            with_the_token(url, token) as proxy,
        ):
            return {version: await run(proxy, version) for version in VERSIONS}

    failed, passed = set(), set()
    for version, summary in asyncio.run(run_all()).items():
        found = re.findall(r"([✓✗]) ([a-z0-9-]+): (\d+) passed, (\d+) failed", summary)
        assert found, (version, summary)
        wrong = {name for sign, name, *_ in found if sign == "✗"}
        assert wrong == not_applying() & {name for _, name, *_ in found}, (version, summary)
        failed |= wrong
        passed |= {name for sign, name, *_ in found if sign == "✓"}
    assert failed == not_applying(), not_applying() - failed
    assert {"server-initialize", "tools-list", "ping", "dns-rebinding-protection"} <= passed
