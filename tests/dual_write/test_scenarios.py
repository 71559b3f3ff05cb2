"""The scenarios of the protocol's model for phases 0 to 2, on the real code.

Each scenario runs many times, and each time interrupts a different program at a different durable
step. After each run the same invariants are checked (``Play.judge``): no acknowledged write is
lost, the feed has no gaps and replays to the state, the target converges, and a changeset is
applied once.
"""

import pytest

from contract_tests import build
from registry_api import Put, new_changeset
from tests.dual_write import actors
from tests.dual_write.actors import TASK
from tests.dual_write.interleavings import APPEND, EDIT, MOVE, RECONCILE, STALE, TORN, W1, W2, R


def test_ww1_two_writers_and_a_target_that_misses_one(scenario):
    """A write that the target missed, because of a failure or a kill, is never hidden by the next
    write's delta (CE1)."""
    ww1 = scenario(phase=1, w1=W1, w2=W2)
    ww1.fail("w1", "w2")
    ww1.fail("w2", "w1")
    ww1.interrupt("w1", "w2", killed=True)
    ww1.interrupt("w2", "w1")
    ww1.wander("ww1", times=4, fails=1)


def test_wwl1_two_writers_and_a_legacy_program(scenario):
    """An edit of a legacy program that a writer absorbs before its own write reaches the target
    too, whichever of our programs is killed meanwhile (CE1)."""
    wwl1 = scenario(phase=1, w1=W1, w2=W2, l=EDIT)
    wwl1.interrupt("w1", "l", "w2", killed=True)
    wwl1.interrupt("l", "w1", "w2")
    wwl1.wander("wwl1", times=5)


def test_wl0_a_legacy_program_waits_over_a_kill(scenario):
    """A legacy program that gets the lock of our killed writer edits the current document: its
    write is kept, and ours counts once, whether killed or not (CE3, CE4)."""
    wl0 = scenario(phase=0, w1=W1, l=EDIT)
    wl0.interrupt("w1", "l", killed=True)
    wl0.interrupt("w1", "l")
    wl0.interrupt("l", "w1")
    wl0.wander("wl0", times=5, kills=2)


def test_wl0s_a_stale_whole_document(scenario):
    """A write acknowledged between a legacy program's read and its write of the whole document is
    kept, even if our writer is killed in between (CE5)."""
    wl0s = scenario(phase=0, w1=W1, l=STALE)
    wl0s.interrupt("l", "w1")
    read = [("l", 2)]
    wl0s.interrupt("w1", "l", before=read)
    wl0s.interrupt("w1", "l", before=read, killed=True)


def test_wl1s_a_stale_whole_document_under_two_writers(scenario):
    """A legacy program's stale whole document in phase 1, while one writer commits records and
    another commits appends, leaves the target equal to the source (CE5)."""
    wl1s = scenario(phase=1, w1=W1, w2=W2, l=STALE)
    wl1s.interrupt("l", "w1", "w2")
    wl1s.interrupt("w2", "l", "w1", before=[("l", 2), ("w1", 99)], killed=True)
    wl1s.wander("wl1s", times=5)


def test_wl0o_a_legacy_program_killed_in_its_write(scenario):
    """A mix of two texts that parses but lacks our agent does not remove the agent: it stays in the
    record and in the document, and the mix is kept (CE5)."""
    wl0o = scenario(phase=0, w1=W1, l=TORN)
    wl0o.conflicts = True
    with wl0o.play() as play:
        play.run("w1")
        play.finish("l")
        assert play.actors["l"].mixed
    wl0o.interrupt("w1", "l", killed=True)


def test_wrl2_a_reader_with_a_writer_and_a_legacy_program(scenario):
    """A read in phase 2 is never older than a write acknowledged before it began, whatever was
    killed, missed by the target or not yet absorbed (CE1, CE3, CE11)."""
    wrl2 = scenario(phase=2, w1=W1, r=R, l=EDIT)
    wrl2.fail("w1", "l", "r")
    wrl2.interrupt("w1", "l", "r", killed=True)
    wrl2.interrupt("r", "l", "w1")
    wrl2.interrupt("l", "w1", "r")
    wrl2.wander("wrl2", times=5, fails=1)


def test_wwr2_a_reader_with_two_writers(scenario):
    """A gap that a failure or a kill left in the target is filled before it is read (CE1)."""
    wwr2 = scenario(phase=2, w1=W1, w2=W2, r=R)
    wwr2.fail("w1", "w2", "r")
    wwr2.fail("w2", "w1", "r")
    wwr2.interrupt("w1", "w2", "r", killed=True)
    wwr2.interrupt("r", "w1", "w2")
    wwr2.wander("wwr2", times=5, fails=1)


def test_rrl2_a_reader_while_another_catches_up(scenario):
    """Data and replication position come from one snapshot of the target: another reader that
    catches the target up between two statements does not make old data look current (CE10)."""
    rrl2 = scenario(phase=2, r1=R, r2=R, l=EDIT, w1=W1)
    rrl2.interrupt("r1", "l", "r2")
    rrl2.interrupt("r1", "w1", "r2", before=[("l", 99)])
    rrl2.wander("rrl2", times=5, kills=0, fails=1)


def test_jsonl_a_reconcile_between_append_and_commit(scenario):
    """A line of ours whose commit is pending, or was killed, is never imported as a foreign line:
    the report is in the record once, also after the same changeset again (CE12)."""
    jsonl = scenario(phase=1, w2=W2, k=RECONCILE)
    jsonl.interrupt("w2", "k", killed=True)
    jsonl.interrupt("k", "w2")
    jsonl.wander("jsonl", times=4, kills=2)


@pytest.mark.parametrize("reason", ["conflict", "record_exists"])
def test_jsonl_a_refused_commit_leaves_no_line(scenario, reason):
    """A refused changeset appends no line, so that reconcile imports nothing (CE12)."""
    entry = build.report(TASK, "old", entry_id="entry-w1" if "exists" in reason else "entry-new")
    expected = None if "exists" in reason else 1
    refused = new_changeset(TASK, [Put(entry)], expected=expected, actor="test")
    attempt = (actors.attempt, {"changeset": refused})
    jsonl = scenario(phase=1, w1=W1, refused=attempt, k=RECONCILE)
    jsonl.interrupt("refused", "k", before=[("w1", 99)])


def test_jsonl_a_commit_that_fails_takes_its_line_back(scenario):
    """When the disk fails any one step of a commit, the line of a refused commit is removed before
    a reconcile can import it, and a changeset of unknown outcome is applied once when it is sent
    again (CE12)."""
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
    """A line that a legacy program appends between our plan and our append counts once, and so does
    ours, however our append ends (CE12)."""
    jsonl = scenario(phase=1, w2=W2, a=APPEND, k=RECONCILE)
    planned = [("w2", 2), ("a", 99)]
    jsonl.interrupt("w2", "k", killed=True, before=planned)
    jsonl.interrupt("w2", "a", "k")


def test_jsonl_a_log_moved_to_the_archive(scenario):
    """When a log is moved away at any moment and a late append creates it again at offset 0, no
    line is lost and none counts twice (CE12)."""
    jsonl = scenario(phase=1, w2=W2, m=MOVE, k=RECONCILE)
    jsonl.interrupt("w2", "m", "k", killed=True)
    jsonl.interrupt("w2", "m", "k")
    jsonl.interrupt("m", "w2", "k")
    jsonl.wander("jsonl moved", times=4)
