"""The scenarios of the protocol's model for the cut-over and the rollback, on the real code.

A switch is one of the programs: it too is interrupted, or killed, at each durable step.
"""

from tests.dual_write import actors
from tests.dual_write.interleavings import EDIT, RECONCILE, STALE, W1, W2, R

OVER = (actors.switcher, {"way": [3]})
THERE_AND_BACK = (actors.switcher, {"way": [3, 2]})
ALL_THE_WAY = (actors.switcher, {"way": [2, 3, 2]})
# The target has taken over and has been written to.
WRITTEN = [("s", "phase 3"), ("w1", "done")]


def test_sw23_a_legacy_program_waits_at_the_freeze(scenario):
    """An edit that a legacy program writes once it gets the lock, at any step of the switch, is in
    the record, or is a late write that is kept with a report (CE6)."""
    sw23 = scenario(phase=2, w1=W1, l=EDIT, s=OVER)
    sw23.interrupt("s", "l", "w1")
    assert set(sw23.kept) == {0, 1}
    sw23.interrupt("l", "s", "w1")


def test_sw23_a_switch_is_killed(scenario):
    """After a switch is killed at any step, the next process goes on in one of the two phases with
    nothing half frozen, and an edit of a legacy program is never absorbed twice (CE6, CE9)."""
    sw23 = scenario(phase=2, w1=W1, l=EDIT, s=OVER)
    sw23.interrupt("s", "l", "w1", killed=True)
    sw23.interrupt("s", "w1", "l", killed=True)
    assert set(sw23.kept) == {0, 1}


def test_sw23_a_changeset_again_after_the_switch(scenario):
    """A changeset that a writer, killed in phase 2, sends again in phase 3 is applied once, the
    feed has no gap, and the files that the writer left delay no switch (CE2)."""
    sw23 = scenario(phase=2, w1=W1, l=EDIT, s=OVER)
    sw23.interrupt("w1", "s", "l", killed=True)
    sw23.interrupt("w1", "l", "s", killed=True)


def test_sw232_a_legacy_program_writes_too_late(scenario):
    """A late write is never overwritten silently: it is kept if it comes before the rollback gets
    to the document, and in the record if it comes after that (CE7)."""
    sw232 = scenario(phase=2, w1=W1, l=EDIT, s=THERE_AND_BACK)
    sw232.interrupt("s", "l", before=WRITTEN)
    sw232.interrupt("l", "s", before=WRITTEN)
    assert set(sw232.kept) == {0, 1}


def test_sw232_a_switch_is_killed_on_rollback(scenario):
    """After a rollback is killed at any step, the document is writable in phase 2 once a process
    has opened the registry, and the same switch, sent again, ends in phase 2 too (CE7, CE9)."""
    sw232 = scenario(phase=2, w1=W1, r=R, l=EDIT, s=THERE_AND_BACK)
    sw232.interrupt("s", "r", "l", before=WRITTEN, killed=True)
    sw232.interrupt("s", "l", "r", before=WRITTEN, killed=True)


def test_sw232s_a_stale_whole_document(scenario):
    """A whole document read before the cut-over and written back at any moment after it removes no
    record that SQLite took meanwhile (CE5, CE7)."""
    sw232s = scenario(phase=2, w1=W1, l=STALE, s=THERE_AND_BACK)
    sw232s.interrupt("s", "l", before=[("l", 2), *WRITTEN])


def test_sw232w_an_intent_from_before_the_cut_over(scenario):
    """The intent of a writer killed at any step never undoes a write of phase 3, and the same
    changeset, sent again, is applied once, in phase 3 or later (CE2, CE8)."""
    sw232w = scenario(phase=2, w1=W1, w2=W2, s=THERE_AND_BACK)
    sw232w.interrupt("w1", ("s", "phase 3"), "w2", "s", killed=True)


def test_all_during_a_switch_there_and_back(scenario):
    """Two writers, a reader and a legacy program lose nothing during a switch there and back, in
    any order, with none or two of our programs killed."""
    every = scenario(phase=1, w1=W1, w2=W2, r=R, l=EDIT, s=ALL_THE_WAY)
    every.wander("all", times=8, kills=0)
    every.wander("all, killed", times=8, kills=2)


def test_a_reconcile_during_a_killed_switch(scenario):
    """A reconcile absorbs the edits of other programs into the writer of record."""
    sw232 = scenario(phase=2, w1=W1, l=EDIT, k=RECONCILE, s=THERE_AND_BACK)
    sw232.interrupt("s", "l", "k", killed=True)
