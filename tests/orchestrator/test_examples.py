"""Every example of docs/orchestrator.md, called as it is written, on memory, json, sqlite, the dual
store in phases 1 and 3, and lmdb."""

import asyncio
import json
import re
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from mcp import Client

from orchestrator.mcp.server import build_server
from orchestrator.service import Orchestrator
from orchestrator.settings import AgentKind, OrchestratorSettings
from registry_api import load_settings, open_store
from registry_api.authoring import KeyValueStore
from tests.orchestrator import conducting
from tests.orchestrator.playing import Play, launchers

ROOT = Path(__file__).parents[2]
EXAMPLES = re.findall(
    r"^\| `(\w+)` \| `(\{.*\})` \|$",
    (ROOT / "docs" / "orchestrator.md").read_text(),
    re.MULTILINE,
)
STORES = {
    "memory": {"REGISTRY_BACKEND": "memory"},
    "json": {"REGISTRY_BACKEND": "json", "REGISTRY_PHASE": "0"},
    "sqlite": {"REGISTRY_BACKEND": "sqlite"},
    "dual1": {"REGISTRY_PHASE": "1"},
    "dual3": {"REGISTRY_PHASE": "3"},
}


def lmdb_store(workspace, monkeypatch):
    pytest.importorskip("lmdb", reason="lmdb is not installed")
    monkeypatch.syspath_prepend(str(ROOT / "examples" / "registry-backend-lmdb"))
    from registry_backend_lmdb import LmdbEngine  # needs the line above

    (workspace / ".registry").mkdir()
    return KeyValueStore(
        LmdbEngine(workspace / ".registry" / "registry.lmdb"),
        name="lmdb",
        now=lambda: datetime.now(UTC),
    )


@pytest.fixture(params=[*STORES, "lmdb"])
def opened(request, tmp_path, monkeypatch):
    """Return a function that makes a Play on one store; kind claude is a program that ends."""
    settings = load_settings(tmp_path, env=STORES.get(request.param, {}))
    own = request.param == "lmdb"
    with closing(lmdb_store(tmp_path, monkeypatch) if own else open_store(settings)) as store:

        def play(**options):
            values = {
                "kinds": {"claude": AgentKind(argv=("true",), preamble=False)},
                "default_kind": "external",
                **options,
            }
            chosen = OrchestratorSettings.model_validate(values)
            return Play(Orchestrator(store, launchers(), settings=settings, options=chosen))

        yield play


def worked(play):
    """Make a phase whose agent has completed, which opens its review."""
    play.create("plan", "build").work("builder")


def revised(play):
    worked(play)
    play.say("needs_revision", "needs_revision")
    play.deploy("fixer")


def approved(play):
    worked(play)
    play.approve()
    play.deploy("builder")


def escalated(play):
    worked(play)
    play.service.abort_review(play.task_id, play.review.review_id, "nobody answers")


def working(play):
    play.create("plan", "build").deploy("builder")


def created(play):
    play.create("plan", "build")


# The state that a tool needs, where it is more than a task with an active agent.
BEFORE = {
    "deploy_agent": created,
    "mark_revision_ready": revised,
    "submit_review_verdict": worked,
    "submit_critique": worked,
    "get_review_status": worked,
    "abort_stalled_review": worked,
    "approve_phase_review": escalated,
    "get_phase_handover": approved,
    "submit_phase_for_review": worked,
}


def filled_in(play, example, folder):
    """Return the example with the ids of the Play, and a folder that exists."""
    now = play.now
    agents = [a for a in now.agents if a.review_id is None]
    reviewers = [r for review in now.reviews for r in review.reviewers]
    names = {
        "TASK-1": play.task_id,
        "builder-1": agents[0].agent_id if agents else "builder-1",
        "reviewer-1": reviewers[0] if reviewers else "reviewer-1",
        "review-1": now.reviews[-1].review_id if now.reviews else "review-1",
        "/home/me/project": str(folder),
    }
    given = json.loads(example)
    return {k: names.get(v, v) if isinstance(v, str) else v for k, v in given.items()}


def test_every_example_works(opened, tmp_path):
    """Each tool accepts the example that the docs give for it."""

    async def run():
        for tool, example in EXAMPLES:
            play = opened(auto_review=tool != "submit_phase_for_review")
            BEFORE.get(tool, working)(play)
            async with Client(build_server(play.service)) as client:
                await conducting.ask(client, tool, **filled_in(play, example, tmp_path))

    assert len(EXAMPLES) > 20
    asyncio.run(run())
