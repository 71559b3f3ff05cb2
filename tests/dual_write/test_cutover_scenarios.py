"""The scenarios of the protocol's model for the cut-over and the way back, on the real code.

A switch is a program among the others: it too is interrupted, or killed, at each durable step.
"""

from tests.dual_write import actors
from tests.dual_write.interleavings import EDIT, RECONCILE, STALE, W1, W2, R

OVER = (actors.switcher, {"way": [3]})
THERE_AND_BACK = (actors.switcher, {"way": [3, 2]})
ALL_THE_WAY = (actors.switcher, {"way": [2, 3, 2]})
# The target has taken over, and was written to.
WRITTEN = [("s", "phase 3"), ("w1", "done")]


def test_sw23_an_older_program_waits_at_the_freeze(scenario):
    """What it writes when its turn comes, at whatever step of the switch, is in the record, or was
    too late and is kept with a report (CE6)."""
    sw23 = scenario(phase=2, w1=W1, l=EDIT, s=OVER)
    sw23.interrupt("s", "l", "w1")
    assert set(sw23.kept) == {0, 1}
    sw23.interrupt("l", "s", "w1")


def test_sw23_a_switch_is_killed(scenario):
    """At whatever step: who comes next goes on in one phase or the other, with nothing left half
    frozen, and what an older program wrote meanwhile is nowhere taken in twice (CE6, CE9)."""
    sw23 = scenario(phase=2, w1=W1, l=EDIT, s=OVER)
    sw23.interrupt("s", "l", "w1", killed=True)
    sw23.interrupt("s", "w1", "l", killed=True)
    assert set(sw23.kept) == {0, 1}


def test_sw23_a_changeset_again_after_the_switch(scenario):
    """A writer killed in phase 2 sends its changeset again in phase 3: applied once, the feed
    gapless; what it left holds up no switch (CE2)."""
    sw23 = scenario(phase=2, w1=W1, l=EDIT, s=OVER)
    sw23.interrupt("w1", "s", "l", killed=True)
    sw23.interrupt("w1", "l", "s", killed=True)


def test_sw232_an_older_program_writes_too_late(scenario):
    """What it writes to a frozen document is never overwritten in silence: kept before the way back
    gets to the document, or in the record after that (CE7)."""
    sw232 = scenario(phase=2, w1=W1, l=EDIT, s=THERE_AND_BACK)
    sw232.interrupt("s", "l", before=WRITTEN)
    sw232.interrupt("l", "s", before=WRITTEN)
    assert set(sw232.kept) == {0, 1}


def test_sw232_a_switch_is_killed_on_the_way_back(scenario):
    """At whatever step: in phase 2 the document can be written again as soon as anyone has come by,
    and the same switch again ends there too (CE7, CE9)."""
    sw232 = scenario(phase=2, w1=W1, r=R, l=EDIT, s=THERE_AND_BACK)
    sw232.interrupt("s", "r", "l", before=WRITTEN, killed=True)
    sw232.interrupt("s", "l", "r", before=WRITTEN, killed=True)


def test_sw232s_a_stale_whole_document(scenario):
    """One read before the cut-over and written back at any moment after it takes nothing from what
    SQLite took meanwhile (CE5, CE7)."""
    sw232s = scenario(phase=2, w1=W1, l=STALE, s=THERE_AND_BACK)
    sw232s.interrupt("s", "l", before=[("l", 2), *WRITTEN])


def test_sw232w_an_intent_from_before_the_cut_over(scenario):
    """Of a writer killed at any step: it never undoes what phase 3 took, and the same changeset
    again is applied once, in phase 3 or behind it (CE2, CE8)."""
    sw232w = scenario(phase=2, w1=W1, w2=W2, s=THERE_AND_BACK)
    sw232w.interrupt("w1", ("s", "phase 3"), "w2", "s", killed=True)


def test_all_beside_a_switch_there_and_back(scenario):
    """Two writers, a reader and an older program, in any order, none killed or two of ours."""
    every = scenario(phase=1, w1=W1, w2=W2, r=R, l=EDIT, s=ALL_THE_WAY)
    every.wander("all", times=8, kills=0)
    every.wander("all, killed", times=8, kills=2)


def test_a_reconcile_beside_a_killed_switch(scenario):
    """What it takes in of others, it takes into the writer of record."""
    sw232 = scenario(phase=2, w1=W1, l=EDIT, k=RECONCILE, s=THERE_AND_BACK)
    sw232.interrupt("s", "l", "k", killed=True)
