"""Capability LEASES: of all processes that use a registry, one holds a lease at a time."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from contract_tests.harness import Harness
from registry_api import Capability, errors
from registry_api.leases import Lease, Leases, leases_of

pytestmark = pytest.mark.needs(Capability.LEASES)

LONG = 60.0  # seconds: longer than a test
SHORT = 0.3


def granted(leases: Leases, name: str, holder: str, seconds: float = LONG) -> Lease:
    """Take a lease that nobody else holds."""
    lease = leases.acquire_lease(name, holder, seconds=seconds)
    assert lease is not None
    return lease


def until_free(leases: Leases, name: str) -> None:
    """Wait until nobody holds the lease any more."""
    deadline = time.monotonic() + 30
    while leases.lease_holder(name) is not None:
        assert time.monotonic() < deadline, "the lease does not expire"
        time.sleep(0.02)


def test_one_holds_it(harness: Harness) -> None:
    """While one process holds a lease, no other gets it, through any instance; each sees who holds
    it. Another lease is free.
    """
    mine, others = leases_of(harness.open()), leases_of(harness.open())
    lease = granted(mine, "leader", "a")
    assert (lease.name, lease.holder, lease.seconds) == ("leader", "a", LONG)
    assert others.acquire_lease("leader", "b", seconds=LONG) is None
    seen = others.lease_holder("leader")
    assert seen is not None
    assert (seen.name, seen.holder, seen.token) == ("leader", "a", lease.token)
    assert 0 < seen.seconds <= LONG
    assert others.lease_holder("other") is None
    assert granted(others, "other", "b").holder == "b"


def test_a_renewal_keeps_the_token(harness: Harness) -> None:
    """The holder extends its lease by taking it again: the same token, and the whole time."""
    leases = leases_of(harness.open())
    first = granted(leases, "leader", "a", seconds=20)
    again = granted(leases, "leader", "a", seconds=LONG)
    assert again.token == first.token
    seen = leases.lease_holder("leader")
    assert seen is not None
    assert seen.seconds > 20


def test_an_expired_lease_goes_to_the_next(harness: Harness) -> None:
    """When the time has passed, another process gets the lease with a higher token; the late holder
    neither renews nor releases it.
    """
    store, next_store = harness.open(), harness.open()
    late = granted(leases_of(store), "leader", "a", seconds=SHORT)
    others = leases_of(next_store)
    until_free(others, "leader")
    lease = granted(others, "leader", "b")
    assert lease.token > late.token
    assert leases_of(store).acquire_lease("leader", "a", seconds=LONG) is None
    assert not leases_of(store).release_lease(late)
    seen = leases_of(store).lease_holder("leader")
    assert seen is not None
    assert seen.holder == "b"


def test_who_comes_back_late_has_a_new_token(harness: Harness) -> None:
    """A holder that takes its lease again after it expired gets a higher token: somebody else may
    have held it meanwhile.
    """
    leases = leases_of(harness.open())
    first = granted(leases, "leader", "a", seconds=SHORT)
    until_free(leases, "leader")
    assert granted(leases, "leader", "a").token > first.token


def test_a_released_lease_is_free_at_once(harness: Harness) -> None:
    """After a release the next one gets the lease, with a higher token; only the present holder can
    release it, and only once.
    """
    mine, others = leases_of(harness.open()), leases_of(harness.open())
    lease = granted(mine, "leader", "a")
    assert not others.release_lease(replace(lease, holder="b"))
    assert not others.release_lease(replace(lease, token=lease.token + 1))
    assert mine.release_lease(lease)
    assert not mine.release_lease(lease)
    assert others.lease_holder("leader") is None
    assert granted(others, "leader", "b").token > lease.token


def test_of_many_exactly_one_gets_it(harness: Harness) -> None:
    """Of eight that ask at the same moment exactly one gets the lease, time and again, and the
    tokens only rise.
    """
    leases = [leases_of(harness.open()) for _ in range(8)]
    tokens = []
    with ThreadPoolExecutor(8) as pool:
        for _ in range(10):
            asked = [
                pool.submit(one.acquire_lease, "leader", f"holder-{n}", seconds=LONG)
                for n, one in enumerate(leases)
            ]
            held = [lease for lease in (a.result() for a in asked) if lease is not None]
            assert len(held) == 1
            tokens.append(held[0].token)
            assert leases[0].release_lease(held[0])
    assert tokens == sorted(set(tokens))


@pytest.mark.parametrize(
    ("name", "holder", "seconds"),
    [("", "a", 1), ("../x", "a", 1), ("a", "", 1), ("a", "\0", 1), ("a", "b", 0), ("a", "b", 1e9)],
)
def test_what_no_lease_can_be_is_refused(
    harness: Harness, name: str, holder: str, seconds: float
) -> None:
    """A name that is no id, an empty holder and a time outside a day are InvalidInput."""
    with pytest.raises(errors.InvalidInput):
        leases_of(harness.open()).acquire_lease(name, holder, seconds=seconds)
