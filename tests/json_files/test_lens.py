"""The lens over legacy documents: converts documents to records and back without loss."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.json_files.legacy.lens.decoder import decode
from backends.json_files.legacy.lens.dialects import dialect_of
from backends.json_files.legacy.lens.encoder import encode
from backends.jsonl.times import Times
from contract_tests import build
from contract_tests.test_model import DELETES, records
from registry_api.errors import RecordExists
from registry_api.records import (
    ACTIVE_AGENT,
    TERMINAL_AGENT,
    AgentStatus,
    Delete,
    Handover,
    PhaseStatus,
    Put,
    Review,
    ReviewStatus,
    Task,
    TaskState,
    json_text,
)
from tests import samples

TIMES = Times.named("Europe/Berlin")
PATH = Path("AGENT_REGISTRY.json")

STAMPS = st.sampled_from(
    ["2026-01-04T22:15:30.123456", "2025-10-26T02:30:00", "2026-01-05T12:12:12.946Z", "soon", None]
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.floats(allow_nan=False, allow_infinity=False, width=16)
    | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


def element(**keys):
    """Return a strategy for objects with some of the keys, odd values in known keys, and unknown
    keys.
    """
    known = st.fixed_dictionaries({}, optional={k: v | JSON for k, v in keys.items()})
    unknown = st.dictionaries(st.sampled_from(["x", "tracked_files", "nested"]), JSON, max_size=2)
    return st.builds(lambda a, b: {**b, **a}, known, unknown)


IDS = st.sampled_from(["a1", "A1", "b.2", "../up", ""])
PHASES = element(
    id=st.sampled_from(["p0", "p1"]),
    order=st.integers(0, 3),
    name=st.text(max_size=3),
    status=st.sampled_from(["ACTIVE", "approved", "REVISING", "AWAITING_REVIEW", "odd"]),
    started_at=STAMPS,
    revision_count=st.integers(0, 2),
)
AGENTS = element(
    id=IDS,
    type=st.text(max_size=3),
    status=st.sampled_from(["running", "Completed", "banana", "phase_completed"]),
    progress=st.sampled_from([0, 250, 2**60, 1.5]),
    phase_index=st.integers(-1, 2),
    phase_id=st.sampled_from(["p0", "p1"]),
    parent=st.sampled_from(["orchestrator", "a1"]),
    last_update=STAMPS,
)
VERDICTS = element(verdict=st.sampled_from(["approved", ""]), findings=st.just([{"a": 1}]))
REVIEWS = element(
    review_id=st.sampled_from(["r", "s"]),
    phase_id=st.sampled_from(["p0", "zz"]),
    status=st.sampled_from(["completed", "aborted", "odd"]),
    reviewers=st.lists(element(agent_id=IDS), max_size=2),
    verdicts=st.lists(VERDICTS | JSON, max_size=3),
    agent_id=st.just("pending-reviewer-1"),
    verdict=st.sampled_from(["approved", "needs_revision"]),
    final_verdict=st.just("approved") | st.just({"outcome": "APPROVED"}),
    created_at=STAMPS,
)
DOCUMENTS = element(
    task_description=st.text(max_size=5),
    created_at=STAMPS,
    status=st.sampled_from(["INITIALIZED", "ACTIVE", "odd"]),
    phases=st.lists(PHASES | JSON, max_size=3),
    agents=st.lists(AGENTS | JSON, max_size=4),
    reviews=st.lists(REVIEWS | JSON, max_size=3),
    agent_hierarchy=st.just({"orchestrator": ["a1"]}),
    total_spawned=st.integers(0, 9),
    active_count=st.integers(0, 9),
    version=st.integers(0, 9),
    current_phase_index=st.integers(0, 2),
    current_phase_id=st.sampled_from(["p0", "p1"]),
    task_context=st.just({"background_context": "x"}),
    max_agents=st.integers(1, 50),
).map(lambda d: {"task_id": "t1", **d})


def read(document, task_id="t1"):
    return decode(document, task_id=task_id, times=TIMES, path=PATH, problems=[])


@settings(deadline=None, max_examples=200)
@given(DOCUMENTS)
def test_reading_and_writing_back_is_the_document(document):
    """encode(decode(d), d) == d with all keys and their order, for any odd document."""
    before = copy.deepcopy(document)
    state = read(document)
    encode(state, state.copy(), document, times=TIMES)
    assert json.dumps(document) == json.dumps(before)


@settings(deadline=None, max_examples=300)
@given(
    DOCUMENTS | st.just({}),
    st.lists(records("t1").map(Put) | DELETES, min_size=1, max_size=6),
)
def test_what_is_written_is_read_back(document, ops):
    """decode(encode(s, d)) == s for every record in either dialect, starting from any document."""
    # As read from a file: numbers that Python would format differently are kept as text.
    document = json_text.parse(json.dumps(document).encode())
    before = read(document) if document else TaskState(Task(task_id="t1"))
    after = before.copy()
    for op in ops:
        if isinstance(op, Delete) or type(op.record).__name__ not in {"ProgressEntry", "Finding"}:
            try:
                after.apply(op, known=lambda *_: False)
            except RecordExists:
                continue
    unknown = {k: v for k, v in document.items() if k in {"x", "tracked_files", "nested"}}
    encode(before, after, document, times=TIMES)
    document = json_text.parse(json_text.dump(document))
    again = read(document)
    after.latest.clear()
    assert again.task.extra == after.task.extra
    assert again == after
    # A Task that was put replaces the unknown fields.
    if after.task == before.task:
        assert unknown.items() <= document.items()


@pytest.mark.parametrize("name", samples.NAMES)
def test_real_documents_survive(name, tmp_path):
    """Each real document is read without a problem and written back byte for byte."""
    workspace = samples.copy_of(name, tmp_path)
    found = sorted(workspace.glob("*/AGENT_REGISTRY.json"))
    assert len(found) in {4, 5}
    for path in found:
        data = path.read_bytes()
        document = json_text.parse(data)
        problems = []
        state = decode(
            document, task_id=path.parent.name, times=TIMES, path=path, problems=problems
        )
        encode(state, state.copy(), document, times=TIMES)
        assert problems == []
        assert json.dumps(document, indent=2).encode() == data
        assert len(state.agents) == len(document["agents"])


def test_the_server_dialect(tmp_path):
    """Phases, reviews, verdicts and agents of a real server document have the expected values."""
    workspace = samples.copy_of("server-2026-01", tmp_path)
    task = "TASK-20261122-065508-44fdf152"
    state = read(json_text.parse((workspace / task / "AGENT_REGISTRY.json").read_bytes()), task)
    assert [p.status for p in state.phases.values()] == [PhaseStatus.APPROVED] * 3
    assert state.phases[1].revision_round == 1
    assert [(r.status, r.verdict, r.phase_index) for r in state.reviews.values()] == [
        (ReviewStatus.COMPLETED, "approved", 0),
        (ReviewStatus.COMPLETED, "needs_revision", 1),
        (ReviewStatus.ABORTED, None, 1),
        (ReviewStatus.COMPLETED, "approved", 1),
    ]
    assert len(state.verdicts) == 10
    assert state.agents["reviewer-cfc43031-1-065517-572adb"].phase_index == -1
    assert state.agents["tester-065547-51038c"].status is AgentStatus.FAILED
    assert state.task.current_phase_index == 2


def test_the_library_dialect(tmp_path):
    """The library dialect has lower-case statuses, phases by id, and a review that contains its
    only verdict.
    """
    workspace = samples.copy_of("server-2026-01", tmp_path)
    task = "TASK-LIB-00000001"
    document = json_text.parse((workspace / task / "AGENT_REGISTRY.json").read_bytes())
    state = read(document, task)
    assert [p.status for p in state.phases.values()] == [
        PhaseStatus.APPROVED,
        PhaseStatus.APPROVED,
        PhaseStatus.REVISION_NEEDED,
    ]
    assert {a.agent_id: a.phase_index for a in state.agents.values()} == {
        "a0": 0,
        "a1": 0,
        "a2": 0,
        "b0": 1,
    }
    assert state.task.current_phase_index == 2
    (review,) = state.reviews.values()
    (verdict,) = state.verdicts.values()
    assert (review.phase_index, review.verdict) == (2, "needs_revision")
    assert (verdict.verdict, verdict.reviewer_id) == (
        "needs_revision",
        "pending-reviewer-6b7aaa6e",
    )
    after = state.copy()
    phase = after.phases[2]
    after.phases[2] = type(phase)(
        **{f: getattr(phase, f) for f in phase.__slots__} | {"status": PhaseStatus.APPROVED}
    )
    encode(state, after, document, times=TIMES)
    assert document["phases"][2]["status"] == "approved"
    assert document["version"] == 19
    assert document["active_count"] == 0


@pytest.mark.parametrize("odd", [[], {}, 7, None])
def test_an_id_of_another_type_stops_no_write(odd):
    """A legacy reviewer or handover has an id that is not text: our record can be written."""
    document = {
        "task_id": "t1",
        "created_at": "2026-01-04T22:15:30.123456",
        "reviews": [{"review_id": "s", "reviewers": [{"agent_id": "a1"}, {"agent_id": odd}]}],
        "registry_backend": {"handovers": [{"handover_id": odd}]},
    }
    before = read(document)
    after = before.copy()
    for record in (
        Review(task_id="t1", review_id="s", reviewers=("a2",)),
        Handover(task_id="t1", handover_id="h"),
    ):
        after.apply(Put(record), known=lambda *_: False)
    encode(before, after, document, times=TIMES)
    found = read(document)
    assert (found.reviews["s"].reviewers, list(found.handovers)) == (("a2",), ["h"])


def made(task, **more):
    """Return a new document of ours with a task and one agent, and its state."""
    state = TaskState(task, agents={"a": build.agent(task.task_id, "a", **more)})
    document = {}
    encode(TaskState(task), state, document, times=TIMES)
    return document, state


def test_what_legacy_tools_read_without_asking_is_there():
    """Every document of ours has limits and the current phase, with the legacy defaults; the record
    has no value until somebody sets one.
    """
    document, state = made(Task(task_id="t1", created_at=build.T0))
    limits = {k: document[k] for k in ("max_agents", "max_depth", "max_concurrent")}
    assert limits == {"max_agents": 45, "max_depth": 5, "max_concurrent": 20}
    assert document["current_phase_index"] == 0
    found = read(document)
    assert found == state
    assert (found.task.max_concurrent, found.task.current_phase_index) == (None, None)
    document["max_concurrent"] = 7  # a legacy program sets one
    assert read(document).task.max_concurrent == 7
    document["max_concurrent"] = 20


@pytest.mark.parametrize("value", [20, 7, None])
def test_a_limit_of_ours_is_a_value(value):
    """A limit that we set is a value, also if it equals the legacy default; when it is removed,
    there is none.
    """
    document, before = made(Task(task_id="t1", created_at=build.T0))
    after = replace(before, task=replace(before.task, max_concurrent=value, current_phase_index=0))
    encode(before, after, document, times=TIMES)
    assert read(document) == after
    assert document["max_concurrent"] == (20 if value is None else value)
    encode(after, before, document, times=TIMES)
    assert read(document).task.max_concurrent is None


def test_a_key_whose_presence_says_something_is_not_there_without_a_value():
    """If `'tmux_session' in agent`, the legacy status tool looks for that session and ends the
    agent. A null that a legacy program wrote stays.
    """
    document, state = made(Task(task_id="t1", created_at=build.T0))
    agent = document["agents"][0]
    assert "tmux_session" not in agent
    named = replace(state, agents={"a": replace(state.agents["a"], tmux_session="s")})
    encode(state, named, document, times=TIMES)
    assert agent["tmux_session"] == "s"
    encode(named, state, document, times=TIMES)
    assert "tmux_session" not in agent
    agent["tmux_session"] = None
    assert read(document) == state
    moved = replace(state, agents={"a": replace(state.agents["a"], progress=5)})
    encode(state, moved, document, times=TIMES)
    assert agent["tmux_session"] is None


@pytest.mark.parametrize(
    ("document", "dialect"),
    [
        ({"phases": [{"status": "ACTIVE"}], "version": 3}, "server"),
        ({"phases": [{"status": "active"}], "current_phase_index": 0, "version": 1}, "server"),
        ({"phases": [], "current_phase_index": 0, "version": 1}, "server"),
        ({"phases": [{"status": "active"}], "version": 3}, "library"),
        (
            {"phases": [{"status": "ACTIVE"}, {"status": "pending"}, {"status": "pending"}]},
            "library",
        ),
        ({"current_phase_id": "p"}, "library"),
        ({"version": 1}, "library"),
        ({}, "server"),
    ],
)
def test_one_key_does_not_change_the_dialect(document, dialect):
    """A stray `version`, which legacy helper functions set, does not outweigh another sign."""
    assert dialect_of(document) == dialect


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("COMPLETED ", "completed"),
        ("Done", "completed"),
        ("cancelled", "terminated"),
        ("stopped", "terminated"),
        ("crashed", "failed"),
        ("in progress", "running"),
    ],
)
def test_a_word_that_can_mean_one_thing_is_read_as_it(word, status):
    """Its text stays in the document until the agent gets another status."""
    document, _ = made(Task(task_id="t1", created_at=build.T0))
    document["agents"][0]["status"] = word
    found = read(document)
    assert found.agents["a"].status == status
    before = copy.deepcopy(document)
    encode(found, replace(found, task=replace(found.task, priority="P9")), document, times=TIMES)
    assert document["agents"] == before["agents"]


@pytest.mark.parametrize(("said", "progress"), [("55", 55), (" 55 %", 55), (66.6, 67), (7, 7)])
def test_progress_is_read_as_people_write_it(said, progress):
    """Numeric strings and floats are read; the text in the document stays."""
    document, _ = made(Task(task_id="t1", created_at=build.T0))
    document["agents"][0]["progress"] = said
    assert read(document).agents["a"].progress == progress


@pytest.mark.parametrize("key", ["status", "progress"])
@pytest.mark.parametrize("said", ["erledigt", None, [], "nan", 1e400])
def test_an_unknown_word_is_named(key, said):
    """The problem names its place and the unknown value."""
    document, _ = made(Task(task_id="t1", created_at=build.T0))
    document["agents"][0][key] = said
    problems = []
    decode(document, task_id="t1", times=TIMES, path=PATH, problems=problems)
    assert len(problems) == 1
    assert f"agents[0] has an unknown {key}" in str(problems[0])


@pytest.mark.parametrize("said", ["erledigt", None, [], 7])
def test_an_agent_of_an_unknown_status_is_neither_active_nor_ended(said):
    """Its text stays in the document until the agent gets a status."""
    document, _ = made(Task(task_id="t1", created_at=build.T0))
    document["agents"][0]["status"] = said
    before = copy.deepcopy(document)
    found = read(document)
    agent = found.agents["a"]
    assert agent.status is AgentStatus.UNKNOWN
    assert agent.status not in ACTIVE_AGENT | TERMINAL_AGENT
    encode(found, replace(found, task=replace(found.task, priority="P9")), document, times=TIMES)
    assert document["agents"] == before["agents"]
    ended = replace(found, agents={"a": replace(agent, status=AgentStatus.TERMINATED)})
    encode(found, ended, document, times=TIMES)
    assert document["agents"][0]["status"] == "terminated"
    assert read(document).agents["a"].status is AgentStatus.TERMINATED


@pytest.mark.parametrize("marker", [1, None, [[]], {"a": 1}])
def test_a_marker_that_somebody_broke_stops_no_write(marker):
    """Another program may write anything under our key; the task can still be written."""
    document, state = made(Task(task_id="t1", created_at=build.T0))
    document["registry_backend"]["defaults"] = marker
    before = read(document)
    after = replace(before, task=replace(before.task, priority="P9"))
    encode(before, after, document, times=TIMES)
    assert read(document).task.priority == "P9"
    assert read(document).agents == state.agents


def test_a_phase_of_a_legacy_program_is_the_current_one():
    """A legacy program adds phase 0 to a task of ours and makes it current: then index 0 is a
    value.
    """
    document, _ = made(Task(task_id="t1", created_at=build.T0))
    document["phases"].append({"id": "p", "name": "x", "status": "ACTIVE"})
    document["current_phase_index"] = 0
    assert read(document).task.current_phase_index == 0


def test_a_limit_that_is_taken_back_is_the_legacy_default():
    """Legacy tools read a limit without a check: the key stays, also in a document that we did not
    create.
    """
    document = {"task_id": "t1", "created_at": "2026-01-04T22:15:30", "max_concurrent": 7}
    before = read(document)
    after = replace(before, task=replace(before.task, max_concurrent=None))
    encode(before, after, document, times=TIMES)
    assert document["max_concurrent"] == 20
    assert read(document).task.max_concurrent is None
