"""The role stamps lose nothing in any interleaving, and each rule is needed."""

import pytest

from tests.dual_write.role_model import Rules, explore

ACTORS = (
    ("local1", "local2", "around0"),
    ("local1", "around0", "around1", "other"),
    ("local1", "around1", "around2"),
)


@pytest.mark.parametrize("actors", ACTORS)
def test_no_interleaving_loses_a_write(actors):
    """Two moves and a step back with two kills and a power loss: every acknowledged write is in
    the writer of record, there is never more than one writer, and one can always write.
    """
    found = explore(actors, Rules(), kills=2, power_losses=1)
    assert found.faults == {}
    assert found.states > 2000  # it has walked through all of it


@pytest.mark.parametrize(
    ("rule", "fault"),
    [
        ("checked", "an acknowledged write is lost"),
        ("fenced_before_copy", "an acknowledged write is lost"),
        ("closed_first", "two writers of record"),
        ("marked", "nobody can write"),
        ("owned", "nobody can write"),
    ],
)
def test_each_rule_is_needed(rule, fault):
    """Without one rule the model finds what goes wrong."""
    rules = Rules(**{rule: False})
    found = [explore(actors, rules, kills=2, power_losses=1).faults for actors in ACTORS]
    assert fault in {name for faults in found for name in faults}
