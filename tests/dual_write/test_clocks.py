"""Times that the clock of a legacy program cannot have shown, or cannot have shown yet."""

import json
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from backends.admin.cli import main
from backends.jsonl.times import Times
from dashboard.live.activity_index import ActivityIndex
from registry_api import load_settings, open_store, silent
from tests import legacy

# A time in the hour that the clock change skips, and one in the hour that it repeats.
GAP, TWICE = "2026-03-29T02:30:00.123456", "2026-10-25T02:30:00.123456"


@pytest.fixture(params=["by TZ", "by setting"])
def berlin(request, monkeypatch):
    """Set Europe/Berlin as the machine's zone, or as the configured zone of the legacy programs."""
    if request.param == "by TZ":
        monkeypatch.setenv("TZ", "Europe/Berlin")
        time.tzset()
        yield
        monkeypatch.undo()
        time.tzset()
    else:
        monkeypatch.setenv("REGISTRY_LEGACY_TZ", "Europe/Berlin")
        yield


def workspace_at(root, moment):
    agent = {"id": "a", "type": "x", "status": "running", "progress": 1}
    agent |= {"started_at": moment, "last_update": moment}
    legacy.write_task(root, "TASK-1", created_at=moment, agents=[agent])
    line = {"timestamp": moment, "agent_id": "a", "message": "x", "progress": 4}
    (root / "TASK-1" / "progress" / "a_progress.jsonl").write_text(json.dumps(line) + "\n")
    return root


@pytest.mark.parametrize("moment", [GAP, TWICE])
def test_skipped_and_repeated_hours_are_read_the_same(tmp_path, berlin, moment, capsys):
    """Both stores read a skipped or repeated hour as the same moment, before and after the zone is
    recorded, in every phase there and back."""
    root = workspace_at(tmp_path, moment)
    for phase in (1, 2, 3, 4, 3, 2, 1, 0):
        for tokens in (["switch", str(phase)], ["verify"], ["diff", "TASK-1"]):
            code = main([*tokens, "--workspace", str(root)])
            assert code == 0, capsys.readouterr()


def test_one_function_reads_them(berlin):
    """A named zone reads a skipped or repeated hour as the same moment as the machine's zone."""
    for moment in (GAP, TWICE):
        known = datetime.fromisoformat(moment).replace(tzinfo=ZoneInfo("Europe/Berlin"))
        assert Times.named("Europe/Berlin").read(moment) == known.astimezone(UTC)


@pytest.mark.parametrize("ahead", [timedelta(days=1), timedelta(days=26_000)])
@pytest.mark.parametrize("backend", ["auto", "sqlite"])
def test_a_timestamp_from_the_future_is_not_a_sign_of_life(tmp_path, ahead, backend, capsys):
    """An agent with a timestamp in the future is silent for the store, for status and for the
    dashboard, and doctor names it."""
    now = datetime.now(UTC)
    root = workspace_at(tmp_path, (now + ahead).isoformat())
    if backend == "sqlite":
        assert main(["switch", "3", "--workspace", str(root)]) == 0
    with closing(open_store(load_settings(root))) as store:
        found = silent(store, now - timedelta(minutes=15))
        assert [a.agent_id for a in found.agents] == ["a"]
        assert found.tasks == ("TASK-1",)
        assert ActivityIndex(store).quiet(now - timedelta(minutes=15)).tasks == {"TASK-1"}
    capsys.readouterr()
    assert main(["status", "--json", "--workspace", str(root)]) == 0
    status = json.loads(capsys.readouterr().out)
    assert status["counts"]["agents"]["silent"] == 1
    assert main(["doctor", "--json", "--workspace", str(root)]) == 3
    issues = json.loads(capsys.readouterr().out)["issues"]
    (issue,) = [i for i in issues if i["check"] == "clocks"]
    assert "agent a of task TASK-1" in issue["what"]
    assert issue["next"]


def test_clocks_may_differ_a_little(tmp_path):
    root = workspace_at(tmp_path, (datetime.now(UTC) + timedelta(minutes=2)).isoformat())
    with closing(open_store(load_settings(root))) as store:
        assert silent(store, datetime.now(UTC) - timedelta(minutes=15)).agents == ()
