"""Compare the store with the reference store: the same answers to a random history."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import HealthCheck, settings
from hypothesis import Phase as Phases
from hypothesis import strategies as st
from hypothesis.internal.conjecture import engine
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from contract_tests import build
from contract_tests.harness import Harness
from registry_api import (
    Agent,
    AgentStatus,
    Changeset,
    Delete,
    Finding,
    Kind,
    Op,
    Phase,
    PhaseStatus,
    ProgressEntry,
    Put,
    RecordQuery,
    RegistryError,
    Review,
    ReviewStatus,
    Task,
    TaskStatus,
    Verdict,
    new_changeset,
)

# Seconds for which a failing history is shortened. Hypothesis takes up to 300 and has no setting.
_SHRINKING = 30

TASKS = st.sampled_from(["t1", "T1", "t-2"])
AGENTS = st.sampled_from(["a1", "A1", "b.2"])
SMALL = st.integers(0, 3)
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8)
TIMES = st.integers(0, 500).map(build.later)
PERHAPS = st.booleans()
EXTRAS = st.sampled_from(["{}", '{"b":1,"a":[2.0]}', '{"a":1e5,"b":null}', '{"status":1,"z":0}'])


def records(task_id: str) -> st.SearchStrategy[Any]:
    """Return a strategy for any record of the task; it has few keys, so that puts collide."""
    task = st.just(task_id)
    return st.one_of(
        st.builds(
            Task,
            task_id=task,
            description=TEXT,
            recorded_status=st.sampled_from(TaskStatus),
            created_at=TIMES,
            extra=EXTRAS,
        ),
        st.builds(
            Phase,
            task_id=task,
            phase_index=SMALL,
            name=TEXT,
            status=st.sampled_from(PhaseStatus),
            started_at=st.none() | TIMES,
        ),
        st.builds(
            Agent,
            task_id=task,
            agent_id=AGENTS,
            status=st.sampled_from(AgentStatus),
            progress=SMALL,
            phase_index=st.none() | SMALL,
            last_update=st.none() | TIMES,
            extra=EXTRAS,
        ),
        st.builds(
            ProgressEntry,
            task_id=task,
            entry_id=st.sampled_from("wxyz"),
            agent_id=AGENTS,
            timestamp=TIMES,
            status=st.sampled_from(["working", "blocked", "completed", "banana", ""]),
            message=TEXT,
            progress=SMALL,
            foreign=PERHAPS,
            extra=EXTRAS,
        ),
        st.builds(
            Finding,
            task_id=task,
            finding_id=st.sampled_from("wxyz"),
            agent_id=AGENTS,
            timestamp=TIMES,
            message=TEXT,
            severity=st.sampled_from(["low", "high"]),
        ),
        st.builds(
            Review,
            task_id=task,
            review_id=st.sampled_from("rs"),
            status=st.sampled_from(ReviewStatus),
            reviewers=st.lists(TEXT, max_size=2).map(tuple),
            created_at=TIMES,
            extra=EXTRAS,
        ),
        st.builds(
            Verdict,
            task_id=task,
            verdict_id=st.sampled_from("vw"),
            review_id=st.sampled_from("rs"),
            reviewer_id=st.none() | AGENTS,
            submitted_at=TIMES,
        ),
    )


DELETES: st.SearchStrategy[Op] = st.one_of(
    st.builds(Delete, st.just(Kind.PHASE), SMALL.map(str)),
    st.builds(Delete, st.just(Kind.AGENT), AGENTS),
    st.builds(Delete, st.just(Kind.REVIEW), st.sampled_from("rs")),
    st.builds(Delete, st.just(Kind.VERDICT), st.sampled_from("vw")),
)


@st.composite
def changesets(draw: st.DrawFn) -> Changeset:
    """Draw a changeset that may be valid or not."""
    task_id = draw(TASKS)
    ops = draw(st.lists(records(task_id).map(Put) | DELETES, min_size=1, max_size=5))
    expected = draw(st.none() | st.integers(0, 6))
    if draw(PERHAPS):
        ops = [Put(Task(task_id=task_id, created_at=build.T0)), *ops]
        expected = 0
    return new_changeset(task_id, ops, expected=expected, at=draw(TIMES), actor="model")


class Machine(RuleBasedStateMachine):
    """A state machine that sends every call to both stores and compares their answers."""

    make: Callable[[], Harness]

    def __init__(self) -> None:
        super().__init__()
        self.harness = self.make()
        self.store = self.harness.open()
        self.folder = tempfile.TemporaryDirectory()
        self.reference = Harness("memory", Path(self.folder.name)).open()
        self.sent = list[Changeset]()

    def teardown(self) -> None:
        """Close both stores."""
        self.harness.__exit__(None, None, None)
        self.reference.close()
        self.folder.cleanup()

    def both(self, changeset: Changeset) -> None:
        """Commit to both stores; the outcomes must be equal except for lineage and cursor."""
        outcomes = [_outcome(s.commit, changeset) for s in (self.store, self.reference)]
        assert outcomes[0] == outcomes[1]

    @rule(changeset=changesets())
    def commit(self, changeset: Changeset) -> None:
        """Commit a new changeset."""
        self.sent.append(changeset)
        self.both(changeset)

    @rule(changeset=changesets())
    def commit_on_head(self, changeset: Changeset) -> None:
        """Commit a new changeset that expects the current revision."""
        head = self.reference.head(changeset.task_id).revision
        changeset = replace(changeset, expected=head)
        if head == 0:
            task = Put(Task(task_id=changeset.task_id, created_at=build.T0))
            changeset = replace(changeset, ops=(task, *changeset.ops))
        self.sent.append(changeset)
        self.both(changeset)

    @rule(index=st.integers(0, 100))
    def again(self, index: int) -> None:
        """Send an earlier changeset again."""
        if self.sent:
            self.both(self.sent[index % len(self.sent)])

    @rule()
    def reopen(self) -> None:
        """Open another store on the same registry."""
        self.store = self.harness.open()

    @invariant()
    def agree(self) -> None:
        """Assert that both stores hold the same tasks, records, counts and feed."""
        assert self.store.counts() == self.reference.counts()
        listed = [s.list_tasks().items for s in (self.store, self.reference)]
        assert listed[0] == listed[1]
        for task in listed[0]:
            mine, other = (s.load(task.task_id) for s in (self.store, self.reference))
            assert replace(mine, lineage="") == replace(other, lineage="")
            assert mine.summary() == task
        for kind in set(Kind) - {Kind.TASK}:
            query = RecordQuery(newest_first=len(self.sent) % 2 == 0)
            pages = [s.list_records(kind, query, limit=7) for s in (self.store, self.reference)]
            assert pages[0] == pages[1]
        feeds = [
            [(c.revision, c.changeset, c.digest) for c in s.changes(limit=1000)]
            for s in (self.store, self.reference)
        ]
        assert feeds[0] == feeds[1]


def _outcome(commit: Callable[[Changeset], Any], changeset: Changeset) -> object:
    try:
        done = commit(changeset)
    except RegistryError as error:
        return error.code
    return done.task_id, done.changeset_id, done.revision, done.replayed


def test_a_random_history_has_the_same_outcome(
    make_harness: Callable[[Path], Harness], tmp_path: Path
) -> None:
    """For any history of changesets the store gives the same answers and holds the same state as
    the reference store.
    """
    count = iter(range(10**6))

    class Here(Machine):
        make = staticmethod(lambda: make_harness(tmp_path / str(next(count))))

    with mock.patch.object(engine, "MAX_SHRINKING_SECONDS", _SHRINKING):
        run_state_machine_as_test(
            Here,
            settings=settings(
                # Without the explain phase, which traces every line and takes minutes.
                phases=[p for p in settings().phases if p is not Phases.explain],
                database=None,
                max_examples=40,
                stateful_step_count=25,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
