"""The scenarios of the protocol's model for phases 0 to 2, on the real code.

Each is played over and over, a different program interrupted at a different durable step each time;
after every one the same is judged (``Play.judge``): nothing acknowledged is lost, the feed is
gapless and tells the state, the target converges, a changeset is applied once.
"""

import itertools
import json
import random
import shutil
import time
from contextlib import contextmanager
from functools import partial

import pytest

from contract_tests import build
from registry_api import Handover, Kind, ProgressEntry, Put, new_changeset
from registry_api.migration import MigrationPhase
from registry_api.models import record_key
from registry_api.state import TaskState
from tests import legacy
from tests.dual_write import actors
from tests.dual_write.actors import TASK, Actor, document_of, history_of, opened
from tests.dual_write.unwrap import dual


def made_by(name, *, expected=1):
    """A changeset that makes an agent and its first report: a record and a history."""
    records = [
        build.agent(TASK, name, type="general-purpose", prompt="do the work"),
        build.report(TASK, name, entry_id=f"entry-{name}", progress=5),
    ]
    return new_changeset(TASK, map(Put, records), expected=expected, actor="test")


def appended_by(name):
    """A changeset without ``expected``: a report and a handover."""
    records = [
        build.report(TASK, "old", entry_id=f"entry-{name}", progress=50),
        Handover(task_id=TASK, handover_id=name, created_at=build.T0),
    ]
    return new_changeset(TASK, map(Put, records), expected=None, actor="test")


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """Make, once a phase, a workspace in it with one task; return the maker."""
    made = {}

    def make(phase):
        if phase not in made:
            made[phase] = folder = tmp_path_factory.mktemp(f"phase{phase}")
            agents = [{"id": "old", "type": "x", "status": "running", "progress": 1}]
            legacy.write_task(folder, TASK, agents=agents)
            log = actors.log_of(folder)
            log.write_text('{"timestamp": "2026-01-04T22:16:00", "agent_id": "old"}\n')
            migration = actors.migrating(folder)
            migration.switch(MigrationPhase(phase), actor="test")
            migration.close()
            store = opened(folder)
            store.load(TASK)
            store.close()
        return made[phase]

    return make


W1 = (actors.writer, {"changeset": made_by("w1")})
W2 = (actors.writer, {"changeset": appended_by("w2")})
R = (actors.reader, {})
EDIT = (actors.legacy_edit, {"name": "l"})
STALE = (actors.legacy_stale, {"name": "l"})
APPEND = (actors.legacy_appender, {})
MOVE = (actors.legacy_mover, {})
RECONCILE = (actors.reconciler, {})
TORN = (actors.legacy_torn, {"ours": "w1"})
# What these append has no name in the record.
LINES = (actors.legacy_appender, actors.legacy_mover)


class Play:
    """One interleaving in a workspace of its own."""

    def __init__(self, workspace, cast):
        self.workspace = workspace
        self.actors = {name: Actor(workspace, p, **args) for name, (p, args) in cast.items()}
        for actor in self.actors.values():
            actor.wait_ready()
        self.sure = {}  # what was acknowledged before a reader began

    def acked(self):
        """The names in the record of what was acknowledged so far."""
        return {n for n, a in self.actors.items() if a.acked and a.program not in LINES}

    def step(self, name):
        actor = self.actors[name]
        if actor.program is actors.reader and actor.at == "ready":
            self.sure[name] = self.acked()
        actor.step()

    def run(self, name):
        """Let one go on until it is done, or waits for a lock."""
        actor = self.actors[name]
        while not actor.is_over:
            self.step(name)
            if actor.at == "blocked":
                return

    def finish(self, *order):
        """Let all go on to their end, in this order where nobody waits; then repeat the killed."""
        end = time.monotonic() + 30
        left = [*order, *(self.actors.keys() - set(order))]
        while left:
            assert time.monotonic() < end, {n: self.actors[n].at for n in left}
            for name in left:
                self.run(name)
            left = [name for name in left if not self.actors[name].is_over]
        for name, actor in self.actors.items():
            if actor.is_dead and actor.mixed is None:
                actor.restart()
                self.run(name)
                assert actor.at == "done"

    def wander(self, rng, *, kills, fails):
        """Take steps in any order until all are over; killed writers begin again at once."""
        while going := [n for n, a in self.actors.items() if not a.is_over]:
            able = [n for n in going if self.actors[n].at != "blocked"]
            name = rng.choice(able if able and rng.random() < 0.9 else going)
            actor = self.actors[name]
            if actor.program is actors.writer and actor.at != "ready":
                if kills and rng.random() < 0.1:
                    kills -= 1
                    actor.kill()
                    actor.restart()
                    continue
                if fails and not actor.failing and rng.random() < 0.1:
                    fails -= 1
                    actor.failing = True
            self.step(name)

    def dirty(self):
        """How many tasks the target lags behind in."""
        migration = actors.migrating(self.workspace)
        try:
            return migration.status().dirty
        finally:
            migration.close()

    def commit(self, changeset):
        """Commit from here, behind all."""
        store = opened(self.workspace)
        store.commit(changeset)
        store.close()

    def holds(self, changeset):
        """Whether the changeset is in the feed and its report in the record: both or neither."""
        store = opened(self.workspace)
        feed = [c.changeset.id for c in store.changes(limit=1000)]
        entries = [e.progress for e in history_of(store, Kind.PROGRESS)]
        store.close()
        assert len(entries) == 1 + feed.count(changeset.id)
        return changeset.id in feed

    def close(self):
        for actor in self.actors.values():
            actor.kill()

    # -- judging -----------------------------------------------------------------------------

    def judge(self, *, conflicts=False):
        """Assert the model's invariants, all idle."""
        writers = {n: a for n, a in self.actors.items() if a.program is actors.writer}
        assert all(a.acked for a in writers.values())
        store = opened(self.workspace)
        migration = actors.migrating(self.workspace)
        try:
            migration.reconcile()
            self._judge_record(store, writers)
            report = migration.verify()
            assert (report.mismatches, report.in_flight) == ((), ())
            assert migration.status().dirty == 0
            if mirror := dual(store).mirror():
                assert mirror.target.load(TASK) == dual(store).source.load(TASK)
                assert mirror.target.changes(limit=1000) == store.changes(limit=1000)
        finally:
            migration.close()
            store.close()
        state = self.workspace / ".registry"
        assert [p for p in (state / "intents").iterdir() if p.stat().st_size] == []
        if not conflicts:
            assert list(state.glob("conflicts/*")) == []
            assert list(state.glob("quarantine/*")) == []

    def _judge_record(self, store, writers):
        snapshot, feed = store.load(TASK), store.changes(limit=1000)
        assert [c.revision for c in feed] == list(range(1, snapshot.revision + 1))
        states = self._replayed(feed)
        assert states[snapshot.revision] == snapshot
        for name, actor in self.actors.items():
            if actor.returned:
                assert states[actor.returned.revision] == actor.returned
                assert self.sure[name] <= _names_in(actor.returned)
        assert self.acked() <= _names_in(snapshot)
        document = json.loads(document_of(self.workspace).read_text())
        in_document = [a["id"] for a in document["agents"]]
        assert sorted(in_document) == [a.agent_id for a in snapshot.agents]
        for actor in writers.values():
            (line,) = [c for c in feed if c.changeset.id == actor.acked.changeset_id]
            assert (line.revision, line.changeset.actor) == (actor.acked.revision, "test")
        # Whatever wrote it: a name comes into the record once.
        put = [(type(op.record), record_key(op.record)) for c in feed for op in _puts(c)]
        for name in self.actors:
            for kind_and_key in {p for p in put if p[1] in {name, f"entry-{name}"}}:
                assert put.count(kind_and_key) == 1, kind_and_key
        of_ours = [op for c in feed if c.changeset.actor == "test" for op in _puts(c)]
        entries = [op.record for op in of_ours if isinstance(op.record, ProgressEntry)]
        self._judge_logs(store, [entry.entry_id for entry in entries])

    def _judge_logs(self, store, ours):
        """Every line is in the record once, and every line of ours in the logs once."""
        entries = history_of(store, Kind.PROGRESS)
        ids = [e.entry_id for e in entries]
        late = [a.acked for a in self.actors.values() if a.program in LINES]
        assert [e.message for e in entries if e.message] == late
        assert sorted(ids) == sorted({*ids, *ours})
        assert len(ids) == 1 + len(ours) + len(late)
        logs = (self.workspace / TASK).rglob("*.jsonl")
        text = "".join(log.read_text() for log in logs)
        assert [text.count(f'"{key}"') for key in ours] == [1] * len(ours)
        assert text.count('"entry_id"') == len(ours)

    def _replayed(self, feed):
        """The task after each revision, as the feed alone tells it."""
        states, state = {}, TaskState.created_by(feed[0].changeset)
        for change in feed:
            state = state.copy()
            for op in change.changeset.ops:
                state.apply(op, known=lambda *_: False)
            states[change.revision] = state.snapshot(
                change.lineage, change.revision, change.changeset.at
            )
        return states


def _names_in(snapshot):
    return {a.agent_id for a in snapshot.agents} | {h.handover_id for h in snapshot.handovers}


def _puts(change):
    return [op for op in change.changeset.ops if isinstance(op, Put)]


class Scenario:
    """Plays one cast of programs in one phase, in many orders."""

    def __init__(self, template, tmp_path, *, phase, **cast):
        self._template = template(phase)
        self._folder = tmp_path
        self._cast = cast
        self.played = 0
        self.conflicts = False

    @contextmanager
    def play(self):
        """Give one interleaving; judge it when it is over."""
        workspace = self._folder / str(self.played)
        self.played += 1
        shutil.copytree(self._template, workspace)
        play = Play(workspace, self._cast)
        try:
            yield play
            play.judge(conflicts=self.conflicts)
        finally:
            play.close()

    def interrupt(self, first, *others, killed=False, before=()):
        """Stop one behind each of its steps in turn, and let the others go as far as they get; then
        it goes on, or is killed there and, when the others are done, started again.

        ``before``: who takes how many steps before that.
        """
        for steps in itertools.count(int(killed)):
            with self.play() as play:
                for name, n in before:
                    for _ in range(n):
                        play.step(name)
                        if play.actors[name].is_over:
                            break
                for _ in range(steps):
                    play.step(first)
                    if play.actors[first].at in {"blocked", "done", "dead"}:
                        break
                over = play.actors[first].at in {"blocked", "done", "dead"}
                for name in others:
                    play.run(name)
                if killed:
                    play.actors[first].kill()
                play.finish(*([] if killed else [first]), *others)
            if over:
                return

    def fail(self, first, *others):
        """The target fails for one as long as it runs; the others that come then heal it."""
        with self.play() as play:
            play.actors[first].failing = True
            play.run(first)
            assert play.dirty() == 1
            play.finish(*others)
            assert play.dirty() == 0

    def wander(self, seed, *, times, kills=1, fails=0):
        """Let anyone take the next step, with so many kills of ours and failures of the target."""
        rng = random.Random(seed)
        for _ in range(times):
            with self.play() as play:
                play.wander(rng, kills=kills, fails=fails)
                play.finish()


@pytest.fixture
def scenario(template, tmp_path):
    """Return a maker of scenarios: the phase, and who takes part under which name."""
    return partial(Scenario, template, tmp_path)


def test_ww1_two_writers_and_a_target_that_misses_one(scenario):
    """A write that the target missed, by a failure or a kill, is never hidden by the next one's
    delta (CE1)."""
    ww1 = scenario(phase=1, w1=W1, w2=W2)
    ww1.fail("w1", "w2")
    ww1.fail("w2", "w1")
    ww1.interrupt("w1", "w2", killed=True)
    ww1.interrupt("w2", "w1")
    ww1.wander("ww1", times=4, fails=1)


def test_wwl1_two_writers_and_an_older_program(scenario):
    """What a writer takes in of an older program's before its own write reaches the target as
    well, whoever of ours is killed meanwhile (CE1)."""
    wwl1 = scenario(phase=1, w1=W1, w2=W2, l=EDIT)
    wwl1.interrupt("w1", "l", "w2", killed=True)
    wwl1.interrupt("l", "w1", "w2")
    wwl1.wander("wwl1", times=5)


def test_wl0_an_older_program_waits_over_a_kill(scenario):
    """It gets the lock of our killed writer and edits what is there: its write stands, ours counts
    once, killed twice or not (CE3, CE4)."""
    wl0 = scenario(phase=0, w1=W1, l=EDIT)
    wl0.interrupt("w1", "l", killed=True)
    wl0.interrupt("w1", "l")
    wl0.interrupt("l", "w1")
    wl0.wander("wl0", times=5, kills=2)


def test_wl0s_a_stale_whole_document(scenario):
    """What is acknowledged between an older program's read and its write of the whole document
    stays, also when our writer is killed in between (CE5)."""
    wl0s = scenario(phase=0, w1=W1, l=STALE)
    wl0s.interrupt("l", "w1")
    read = [("l", 2)]
    wl0s.interrupt("w1", "l", before=read)
    wl0s.interrupt("w1", "l", before=read, killed=True)


def test_wl1s_a_stale_whole_document_under_two_writers(scenario):
    """The same in phase 1, with a report beside the record: the target ends equal (CE5)."""
    wl1s = scenario(phase=1, w1=W1, w2=W2, l=STALE)
    wl1s.interrupt("l", "w1", "w2")
    wl1s.interrupt("w2", "l", "w1", before=[("l", 2), ("w1", 99)], killed=True)
    wl1s.wander("wl1s", times=5)


def test_wl0o_an_older_program_killed_in_its_write(scenario):
    """A mix of two texts that parses and lacks our agent takes it from nobody: the agent stays, in
    the document too, and the mix is kept (CE5)."""
    wl0o = scenario(phase=0, w1=W1, l=TORN)
    wl0o.conflicts = True
    with wl0o.play() as play:
        play.run("w1")
        play.finish("l")
        assert play.actors["l"].mixed
    wl0o.interrupt("w1", "l", killed=True)


def test_wrl2_a_reader_beside_a_writer_and_an_older_program(scenario):
    """A read in phase 2 is never older than what was acknowledged before it began, whatever was
    killed, missed by the target or not yet taken in (CE1, CE3, CE11)."""
    wrl2 = scenario(phase=2, w1=W1, r=R, l=EDIT)
    wrl2.fail("w1", "l", "r")
    wrl2.interrupt("w1", "l", "r", killed=True)
    wrl2.interrupt("r", "l", "w1")
    wrl2.interrupt("l", "w1", "r")
    wrl2.wander("wrl2", times=5, fails=1)


def test_wwr2_a_reader_beside_two_writers(scenario):
    """A gap that a failure or a kill left in the target is healed before it is read (CE1)."""
    wwr2 = scenario(phase=2, w1=W1, w2=W2, r=R)
    wwr2.fail("w1", "w2", "r")
    wwr2.fail("w2", "w1", "r")
    wwr2.interrupt("w1", "w2", "r", killed=True)
    wwr2.interrupt("r", "w1", "w2")
    wwr2.wander("wwr2", times=5, fails=1)


def test_rrl2_a_reader_beside_a_healer(scenario):
    """Data and mark come from one state of the target: another reader that heals between two of a
    reader's statements does not make old data pass as fresh (CE10)."""
    rrl2 = scenario(phase=2, r1=R, r2=R, l=EDIT, w1=W1)
    rrl2.interrupt("r1", "l", "r2")
    rrl2.interrupt("r1", "w1", "r2", before=[("l", 99)])
    rrl2.wander("rrl2", times=5, kills=0, fails=1)


def test_jsonl_a_reconcile_between_append_and_commit(scenario):
    """A line of ours whose commit is still to come, or died, is never taken for a foreign one: the
    report is in the record once, and so it is after the same changeset again (CE12)."""
    jsonl = scenario(phase=1, w2=W2, k=RECONCILE)
    jsonl.interrupt("w2", "k", killed=True)
    jsonl.interrupt("k", "w2")
    jsonl.wander("jsonl", times=4, kills=2)


@pytest.mark.parametrize("reason", ["conflict", "record_exists"])
def test_jsonl_a_refused_commit_leaves_no_line(scenario, reason):
    """Nothing is appended for a changeset that is refused, so nothing can be reconciled (CE12)."""
    entry = build.report(TASK, "old", entry_id="entry-w1" if "exists" in reason else "entry-new")
    expected = None if "exists" in reason else 1
    refused = new_changeset(TASK, [Put(entry)], expected=expected, actor="test")
    attempt = (actors.attempt, {"changeset": refused})
    jsonl = scenario(phase=1, w1=W1, refused=attempt, k=RECONCILE)
    jsonl.interrupt("refused", "k", before=[("w1", 99)])


def test_jsonl_a_commit_that_fails_takes_its_line_back(scenario):
    """The disk refuses any one step of a commit: refused, its line is gone before anyone can
    reconcile it; of unknown outcome, the same changeset again is applied once (CE12)."""
    changeset = W2[1]["changeset"]
    jsonl = scenario(phase=1, w2=(actors.attempt, {"changeset": changeset}), k=RECONCILE)
    said = set()
    for steps in range(1, 100):
        with jsonl.play() as play:
            actor = play.actors["w2"]
            for _ in range(steps):
                play.step("w2")
            if actor.is_over:
                break
            actor.step("fail")
            play.run("k")
            play.finish("w2", "k")
            said.add(actor.refused)
            happened = play.holds(changeset)
            assert happened or actor.refused
            assert not happened or actor.refused != "unavailable"
            play.commit(changeset)
            assert play.holds(changeset)
    assert said == {None, "unavailable", "outcome_unknown"}


def test_jsonl_an_append_at_the_same_moment(scenario):
    """An older program's line between our plan and our append, however it ends for us: both lines
    count once (CE12)."""
    jsonl = scenario(phase=1, w2=W2, a=APPEND, k=RECONCILE)
    planned = [("w2", 2), ("a", 99)]
    jsonl.interrupt("w2", "k", killed=True, before=planned)
    jsonl.interrupt("w2", "a", "k")


def test_jsonl_a_log_moved_to_the_archive(scenario):
    """Moved away at any moment and made anew by a late append at offset 0: no line is lost, none
    counts twice (CE12)."""
    jsonl = scenario(phase=1, w2=W2, m=MOVE, k=RECONCILE)
    jsonl.interrupt("w2", "m", "k", killed=True)
    jsonl.interrupt("w2", "m", "k")
    jsonl.interrupt("m", "w2", "k")
    jsonl.wander("jsonl moved", times=4)
