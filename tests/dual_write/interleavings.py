"""Plays of a scenario of the protocol's model on the real code: a cast of programs, in many orders.

Different programs are interrupted at different durable steps; after every play the same is judged
(``Play.judge``): nothing acknowledged is lost, the feed is gapless and tells the state, the target
converges, a changeset is applied once, documents are writable where they are the truth.
"""

import itertools
import json
import random
import shutil
import time
from contextlib import contextmanager

from contract_tests import build
from registry_api import Handover, Kind, ProgressEntry, Put, new_changeset
from registry_api.control import FileControl
from registry_api.migration import MigrationPhase
from registry_api.models import record_key
from registry_api.state import TaskState
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


W1 = (actors.writer, {"changeset": made_by("w1")})
W2 = (actors.writer, {"changeset": appended_by("w2")})
R = (actors.reader, {})
EDIT = (actors.legacy_edit, {"name": "l"})
STALE = (actors.legacy_stale, {"name": "l"})
APPEND = (actors.legacy_appender, {})
MOVE = (actors.legacy_mover, {})
RECONCILE = (actors.reconciler, {})
TORN = (actors.legacy_torn, {"ours": "w1"})
LEGACY = (actors.legacy_edit, actors.legacy_stale)
LINES = (actors.legacy_appender, actors.legacy_mover)  # what these append has no name


class Play:
    """One interleaving in a workspace of its own."""

    def __init__(self, workspace, cast):
        self.workspace = workspace
        self.actors = {name: Actor(workspace, p, **args) for name, (p, args) in cast.items()}
        for actor in self.actors.values():
            actor.wait_ready()
        self.sure = {}  # what was acknowledged before a reader began
        self.acked_in = {}  # the phase in which each was acknowledged

    def phase(self):
        """The phase that is recorded now."""
        return FileControl(self.workspace / ".registry").current().phase

    def acked(self):
        """The names that are to be in the record: of what was acknowledged so far, an older
        program's by the documents' last moment as the truth."""
        for name, actor in self.actors.items():
            if actor.acked and actor.program not in LINES:
                self.acked_in.setdefault(name, self.phase())
        return self.acked_in.keys() - self.too_late()

    def too_late(self):
        """The older programs that were acknowledged when SQLite had taken over."""
        return {
            n
            for n, phase in self.acked_in.items()
            if self.actors[n].program in LEGACY and phase >= MigrationPhase.WRITE_CUTOVER
        }

    def step(self, name):
        actor = self.actors[name]
        if actor.program is actors.reader and actor.at == "ready":
            self.sure[name] = self.acked()
        actor.step()
        if actor.acked:
            self.acked()  # in the phase of this moment

    def run(self, name, upto=None):
        """Let one go on until it is done, or waits for a lock, or stands at ``upto``, or took so
        many steps."""
        actor = self.actors[name]
        for n in itertools.count(1):
            if actor.is_over:
                return
            self.step(name)
            if actor.at in {"blocked", upto} or n == upto:
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
        self._judge_recovery()
        for name, actor in self.actors.items():
            if actor.is_dead and actor.mixed is None:
                actor.restart()
                self.run(name)
                assert actor.at == "done"

    def wander(self, rng, *, kills, fails):
        """Take steps in any order until all are over; killed writers begin again at once, but not
        beside a switch, which may hold up whoever opens the registry."""
        while going := [n for n, a in self.actors.items() if not a.is_over]:
            able = [n for n in going if self.actors[n].at != "blocked"]
            name = rng.choice(able if able and rng.random() < 0.9 else going)
            actor = self.actors[name]
            if actor.program in {actors.writer, actors.switcher} and actor.at != "ready":
                if kills and rng.random() < 0.1:
                    kills -= 1
                    actor.kill()
                    if all(a.program is not actors.switcher for a in self.actors.values()):
                        actor.restart()
                    continue
                if fails and not actor.failing and rng.random() < 0.1:
                    fails -= 1
                    actor.failing = True
            self.step(name)

    def come_by(self):
        """Open the registry where a switch was killed: it may have been the last to take a step,
        and then nobody has recovered it."""
        if any(a.is_dead and a.program is actors.switcher for a in self.actors.values()):
            opened(self.workspace).close()

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
        """Assert the model's invariants, all idle; returns how many documents were put aside."""
        writers = {n: a for n, a in self.actors.items() if a.program is actors.writer}
        assert all(a.acked for a in writers.values())
        store = opened(self.workspace)
        migration = actors.migrating(self.workspace)
        try:
            migration.reconcile()
            self._judge_record(store, writers)
            report = migration.verify()
            assert (report.mismatches, report.in_flight) == ((), ())
            assert not migration.status().dirty
            if self._judge_frozen() < MigrationPhase.WRITE_CUTOVER:
                self._judge_target(store)
            kept = self._judge_kept(store)
        finally:
            migration.close()
            store.close()
        state = self.workspace / ".registry"
        assert [p for p in (state / "intents").iterdir() if p.stat().st_size] == []
        if not conflicts:
            assert {p for p in state.glob("conflicts/*") if ".straggler-" not in p.name} == set()
            assert len(list(state.glob("conflicts/*"))) == 2 * kept
            assert list(state.glob("quarantine/*")) == []
        return kept

    def _judge_target(self, store):
        if replicator := dual(store).replicator():
            assert replicator.target.load(TASK) == dual(store).source.load(TASK)
            assert replicator.target.changes(limit=1000) == store.changes(limit=1000)

    def _judge_recovery(self):
        """Whatever was killed: who came by left a document that can be written where it is the
        truth, and who opens the registry next one that is frozen where it is not."""
        if self.phase() < MigrationPhase.WRITE_CUTOVER:
            self._judge_frozen()
        elif any(a.is_dead and a.program is actors.switcher for a in self.actors.values()):
            opened(self.workspace).close()
            self._judge_frozen()

    def _judge_frozen(self):
        """The document is read-only where it is no longer the truth; returns the phase."""
        phase, mode = self.phase(), document_of(self.workspace).stat().st_mode & 0o777
        assert mode == (0o444 if phase >= MigrationPhase.WRITE_CUTOVER else 0o644)
        return phase

    def _judge_kept(self, store):
        """What older programs wrote too late is in the record, or kept beside a report; returns how
        many of them are kept."""
        reports = (self.workspace / ".registry").glob("conflicts/*.straggler-*.report")
        missing = self.too_late() - _names_in(store.load(TASK))
        kept = {n: r for r in reports for n in missing if n in _agents_beside(r)}
        assert kept.keys() == missing
        return len(set(kept.values()))

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
        if self.phase() < MigrationPhase.WRITE_CUTOVER:
            in_document = _agents_in(document_of(self.workspace))
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
        counts = [text.count(f'"{key}"') for key in ours]
        assert text.count('"entry_id"') == sum(counts)
        # A writer that stands between its commit to SQLite and its line is not waited for by the
        # way back: its line may be there twice, and counts once.
        once = {1} if actors.switcher not in {a.program for a in self.actors.values()} else {1, 2}
        assert set(counts) <= once

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


def _agents_in(document):
    return [agent["id"] for agent in json.loads(document.read_text())["agents"]]


def _agents_beside(report):
    return _agents_in(report.with_suffix(".json"))


def _puts(change):
    return [op for op in change.changeset.ops if isinstance(op, Put)]


ANY = object()  # no step that anyone takes


class Scenario:
    """Plays one cast of programs in one phase, in many orders."""

    def __init__(self, template, tmp_path, *, phase, **cast):
        self._template = template(phase)
        self._folder = tmp_path
        self._cast = cast
        self.played = 0
        self.conflicts = False
        self.kept = []  # how many documents were put aside, of each play

    @contextmanager
    def play(self):
        """Give one interleaving; judge it when it is over."""
        workspace = self._folder / str(self.played)
        self.played += 1
        shutil.copytree(self._template, workspace)
        play = Play(workspace, self._cast)
        try:
            yield play
            self.kept.append(play.judge(conflicts=self.conflicts))
        finally:
            play.close()

    def interrupt(self, first, *others, killed=False, before=()):
        """Stop one behind each of its steps in turn, and let the others go as far as they get; then
        it goes on, or is killed there and, when the others are done, started again.

        ``others``: who, or who up to which step. ``before``: who goes up to which step, or for how
        many, before that.
        """
        steps = self._interrupted(first, others, before)
        assert steps
        for step in [*([] if killed else [None]), *steps]:
            self._interrupted(first, others, before, behind=step, killed=killed)

    def _interrupted(self, first, others, before, *, behind=ANY, killed=False):
        """Play one; returns which steps it took. They are told by name and number: how many looks
        lie between two of them depends on how old files are."""
        steps = []
        with self.play() as play:
            for name, upto in before:
                play.run(name, upto)
            while behind is not None and behind not in steps:
                play.step(first)
                at = play.actors[first].at
                if at in {"blocked", "done", "dead"}:
                    break
                steps.append((at, sum(at == other for other, _ in steps)))
            for other in others:
                play.run(*([other] if isinstance(other, str) else other))
            if killed:
                play.actors[first].kill()
            names = [other for other in others if isinstance(other, str)]
            play.finish(*([] if killed else [first]), *names)
        return steps

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
                play.come_by()
                play.finish()
