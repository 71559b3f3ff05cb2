"""What a store declares works, and what it does not declare is not there to be used."""

from __future__ import annotations

import pytest

from contract_tests import build
from contract_tests.harness import Harness
from registry_api import (
    CONTRACT_VERSION,
    Capability,
    Movable,
    MoveTarget,
    errors,
    facet,
)

PROTOCOLS = {
    Capability.MOVE_TARGET: MoveTarget,
    Capability.MOVABLE: Movable,
}


def test_a_store_says_what_it_is(harness: Harness) -> None:
    """The same each time it is asked: a name, a contract that this host knows, capabilities of the
    contract that go together, limits that leave room.
    """
    info = harness.open().info
    assert info == harness.open().info
    assert info.name
    major, _, minor = info.contract_version.partition(".")
    assert (major, minor.isdecimal()) == (CONTRACT_VERSION.partition(".")[0], True)
    assert info.capabilities <= set(Capability)
    lasting = {Capability.DURABLE, Capability.MULTI_PROCESS, Capability.MOVABLE}
    assert Capability.PERSISTENT in info.capabilities or not lasting & info.capabilities
    assert info.limits.ops >= 100
    assert info.limits.changeset_bytes >= 2**16


def test_what_is_declared_is_there(harness: Harness) -> None:
    """A capability with methods of its own has them, and a store without it has none of them: the
    host asks only for the declaration.
    """
    store = harness.open()
    for capability, protocol in PROTOCOLS.items():
        if capability in harness.info.capabilities:
            assert facet(store, protocol) is not None, capability
    if Capability.MOVE_TARGET not in harness.info.capabilities:
        assert not isinstance(store, MoveTarget)


@pytest.mark.needs(Capability.PERSISTENT)
def test_a_store_opened_for_reading_refuses_to_write(harness: Harness) -> None:
    """It reads what was there when it was opened, answers a commit with ReadOnly, and changes
    nothing. Where it is a look at files that nobody took over, its revisions are its own.
    """
    writer = harness.open()
    build.make(writer, "t", build.agent("t"))
    before = writer.load("t"), writer.counts(), writer.changes()
    reader = harness.open_for_reading()
    assert (reader.load("t").task, reader.load("t").agents) == (before[0].task, before[0].agents)
    assert reader.counts() == before[1]
    with pytest.raises(errors.ReadOnly):
        build.put(reader, build.report("t"), expected=None)
    with pytest.raises(errors.ReadOnly):
        build.make(reader, "other")
    assert (writer.load("t"), writer.counts(), writer.changes()) == before
