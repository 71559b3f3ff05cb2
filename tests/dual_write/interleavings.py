"""Interleavings of a scenario of the protocol's model, run on the real code.

A scenario is a set of programs. Each interleaving interrupts them at different durable steps, and
after each the same invariants are checked (``Play.judge``): no acknowledged write is lost, the feed
has no gaps and replays to the state, the target converges, a changeset is applied once, and
documents are writable in the phases in which they are the writer of record.
"""

import itertools
import json
import random
import shutil
import time
from contextlib import contextmanager

from contract_tests import build
from registry_api import Handover, Kind, ProgressEntry, Put, new_changeset
from registry_api.migration import MigrationPhase, PhaseFile
from registry_api.records import TaskState, record_key
from tests.dual_write import actors
from tests.dual_write.actors import TASK, Actor, document_of, history_of, opened
from tests.dual_write.unwrap import dual


def made_by(name, *, expected=1):
    """Return a changeset that makes an agent and its first report: a record and a history entry."""
    records = [
        build.agent(TASK, name, type="general-purpose", prompt="do the work"),
        build.report(TASK, name, entry_id=f"entry-{name}", progress=5),
    ]
    return new_changeset(TASK, map(Put, records), expected=expected, actor="test")


def appended_by(name):
    """Return a changeset without ``expected``: a report and a handover."""
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
LINES = (actors.legacy_appender, actors.legacy_mover)  # the lines that these append have no name


class Play:
    """One interleaving in its own workspace."""

    def __init__(self, workspace, cast):
        self.workspace = workspace
        self.actors = {name: Actor(workspace, p, **args) for name, (p, args) in cast.items()}
        for actor in self.actors.values():
            actor.wait_ready()
        self.sure = {}  # the names acknowledged before a reader began
        self.acked_in = {}  # the phase in which each name was acknowledged

    def phase(self):
        """Return the phase that is recorded now."""
        return PhaseFile(self.workspace / ".registry").current().phase

    def acked(self):
        """Return the names that must be in the record: those acknowledged so far, except edits of
        legacy programs that came after the cut-over."""
        for name, actor in self.actors.items():
            if actor.acked and actor.program not in LINES:
                self.acked_in.setdefault(name, self.phase())
        return self.acked_in.keys() - self.too_late()

    def too_late(self):
        """Return the legacy programs whose edit was acknowledged after SQLite had taken over."""
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
            self.acked()  # records the current phase

    def run(self, name, upto=None):
        """Let one program go on until it is done, waits for a lock, reaches the step ``upto``, or
        has taken ``upto`` steps."""
        actor = self.actors[name]
        for n in itertools.count(1):
            if actor.is_over:
                return
            self.step(name)
            if actor.at in {"blocked", upto} or n == upto:
                return

    def finish(self, *order):
        """Let all programs run to their end, in this order if none waits; repeat killed ones."""
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
        """Take steps in any order until all programs are over. A killed writer begins again at
        once, except during a switch, which may hold up any process that opens the registry."""
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
        """Open the registry where a switch was killed: if no program took a step after that,
        nothing has recovered it yet."""
        if any(a.is_dead and a.program is actors.switcher for a in self.actors.values()):
            opened(self.workspace).close()

    def dirty(self):
        """Return in how many tasks the target is behind."""
        migration = actors.migrating(self.workspace)
        try:
            return migration.status().dirty
        finally:
            migration.close()

    def commit(self, changeset):
        """Commit from the test's own process, after the programs."""
        store = opened(self.workspace)
        store.commit(changeset)
        store.close()

    def holds(self, changeset):
        """Return whether the feed has the changeset; assert the same of its report in the
        record."""
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
        """Assert the model's invariants with every program idle; return how many documents were
        moved to conflicts/."""
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
        """Assert that recovery left the document writable before the cut-over, and that the next
        process to open the registry leaves it frozen after the cut-over."""
        if self.phase() < MigrationPhase.WRITE_CUTOVER:
            self._judge_frozen()
        elif any(a.is_dead and a.program is actors.switcher for a in self.actors.values()):
            opened(self.workspace).close()
            self._judge_frozen()

    def _judge_frozen(self):
        """Assert that the document is read-only exactly from the cut-over on; return the phase."""
        phase, mode = self.phase(), document_of(self.workspace).stat().st_mode & 0o777
        assert mode == (0o444 if phase >= MigrationPhase.WRITE_CUTOVER else 0o644)
        return phase

    def _judge_kept(self, store):
        """Assert that each late write of a legacy program is in the record, or kept next to a
        report; return how many are kept."""
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
        # A name is put into the record once, whichever program wrote it.
        put = [(type(op.record), record_key(op.record)) for c in feed for op in _puts(c)]
        for name in self.actors:
            for kind_and_key in {p for p in put if p[1] in {name, f"entry-{name}"}}:
                assert put.count(kind_and_key) == 1, kind_and_key
        of_ours = [op for c in feed if c.changeset.actor == "test" for op in _puts(c)]
        entries = [op.record for op in of_ours if isinstance(op.record, ProgressEntry)]
        self._judge_logs(store, [entry.entry_id for entry in entries])

    def _judge_logs(self, store, ours):
        """Assert that every line is in the record once, and every line of ours in the logs once."""
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
        # A rollback does not wait for a writer that is between its commit to SQLite and its line:
        # the line may be in the log twice, and counts once.
        once = {1} if actors.switcher not in {a.program for a in self.actors.values()} else {1, 2}
        assert set(counts) <= once

    def _replayed(self, feed):
        """Return the task after each revision, replayed from the feed alone."""
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


ANY = object()  # equal to no step of a program


class Scenario:
    """Runs one set of programs in one phase, in many orders."""

    def __init__(self, template, tmp_path, *, phase, **cast):
        self._template = template(phase)
        self._folder = tmp_path
        self._cast = cast
        self.played = 0
        self.conflicts = False
        self.kept = []  # of each interleaving, how many documents were moved to conflicts/

    @contextmanager
    def play(self):
        """Give one interleaving; check the invariants when it is over."""
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
        """Stop one program after each of its steps in turn, and let the others go as far as they
        get. Then it goes on, or it is killed there and started again when the others are done.

        ``others``: the names, or names with the step to stop at. ``before``: names with the step,
        or the number of steps, that they take before that.
        """
        steps = self._interrupted(first, others, before)
        assert steps
        for step in [*([] if killed else [None]), *steps]:
            self._interrupted(first, others, before, behind=step, killed=killed)

    def _interrupted(self, first, others, before, *, behind=ANY, killed=False):
        """Run one interleaving; return the steps that the first program took. A step is a name and
        a number, because the number of reads between two steps depends on the age of files."""
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
        """Make the target fail for one program; assert that others then bring it up to date."""
        with self.play() as play:
            play.actors[first].failing = True
            play.run(first)
            assert play.dirty() == 1
            play.finish(*others)
            assert play.dirty() == 0

    def wander(self, seed, *, times, kills=1, fails=0):
        """Let any program take the next step, with at most this many kills and target failures."""
        rng = random.Random(seed)
        for _ in range(times):
            with self.play() as play:
                play.wander(rng, kills=kills, fails=fails)
                play.come_by()
                play.finish()
