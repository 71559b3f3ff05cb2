"""What ``registry_api.authoring`` requires of an engine, tested on the engine's own methods."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from itertools import islice
from typing import Protocol

import pytest

from contract_tests.harness import Harness
from registry_api import find_capability
from registry_api.authoring import Engine, View

_FIRST, _LAST = b"check\0", b"check\1"
# Keys that sort differently as bytes than as text, as numbers or with their case folded.
_KEYS = [
    b"check\0" + k for k in (b"", b"\0", b"-1", b"10", b"9", b"A", b"a", b"a\0b", b"a.", b"\xff")
]


class _HasEngine(Protocol):
    @property
    def engine(self) -> Engine: ...


@pytest.fixture
def engine(harness: Harness) -> Engine:
    """The engine of a key-value store."""
    store = find_capability(harness.open(), _HasEngine)
    if store is None:
        pytest.skip(f"{harness.name} does not declare an engine")
    found: Engine = store.engine
    return found


def _all(view: View) -> list[tuple[bytes, bytes]]:
    return list(view.scan(_FIRST, _LAST))


def _fill(engine: Engine, keys: list[bytes]) -> None:
    with engine.write() as batch:
        for key in keys:
            batch.put(key, b"of " + key)


def test_a_scan_is_in_the_order_of_the_bytes(
    engine: Engine, chance: Callable[[int], random.Random]
) -> None:
    """A scan returns the keys in byte order, whatever the order of the puts, from the first bound
    (included) up to the last one (excluded).
    """
    shuffled = list(_KEYS)
    chance(0).shuffle(shuffled)
    _fill(engine, [*shuffled, _LAST, b"chec", b"other"])
    with engine.read() as view:
        assert [key for key, _ in _all(view)] == sorted(_KEYS)
        assert _all(view) == [(key, b"of " + key) for key in sorted(_KEYS)]
        some = list(view.scan(b"check\x0010", b"check\0a"))
        assert [key for key, _ in some] == [b"check\x0010", b"check\x009", b"check\0A"]
        assert view.get(b"check\0a") == b"of check\0a"
        assert view.get(b"check\0nothing") is None


def test_a_long_scan_is_whole(engine: Engine) -> None:
    """A scan returns all of 5,000 keys, also in a batch that has changed some of them, and stops
    where the caller stops.
    """
    keys = [b"check\0%04d" % n for n in range(5000)]
    _fill(engine, keys)
    with engine.read() as view:
        assert [key for key, _ in _all(view)] == keys
        assert [key for key, _ in islice(view.scan(_FIRST, _LAST), 3)] == keys[:3]
    with engine.write() as batch:
        for key in keys[::2]:
            batch.delete(key)
        batch.put(b"check\09999", b"last")
        assert [key for key, _ in _all(batch)] == [*keys[1::2], b"check\09999"]


def test_a_batch_sees_itself(engine: Engine) -> None:
    """In a batch, get and scan see what the batch has put and deleted."""
    _fill(engine, _KEYS)
    with engine.write() as batch:
        batch.delete(_KEYS[0])
        batch.delete(b"check\0nothing")
        batch.put(b"check\0new", b"1")
        batch.put(_KEYS[1], b"2" * 2**20)
        assert batch.get(_KEYS[0]) is None
        assert dict(_all(batch))[b"check\0new"] == b"1"
        assert _KEYS[0] not in dict(_all(batch))
    with engine.read() as view:
        assert len(_all(view)) == len(_KEYS)
        assert view.get(_KEYS[1]) == b"2" * 2**20


def test_a_batch_that_fails_leaves_nothing(engine: Engine) -> None:
    """A batch that ends with an exception changes nothing, and the next batch works."""
    _fill(engine, _KEYS)
    with engine.read() as view:
        before = _all(view)

    def fail() -> None:
        with engine.write() as batch:
            batch.put(b"check\0new", b"1")
            batch.delete(_KEYS[0])
            raise LookupError("on purpose")

    with pytest.raises(LookupError):
        fail()
    with engine.read() as view:
        assert _all(view) == before
    _fill(engine, [b"check\0next"])
    with engine.read() as view:
        assert len(_all(view)) == len(before) + 1


def test_a_view_is_one_state(engine: Engine) -> None:
    """A view does not see what another thread commits, or waits to commit, while it is open."""
    _fill(engine, _KEYS)
    writer = threading.Thread(target=_fill, args=(engine, [b"check\0later", b"check\x00earlier"]))
    with engine.read() as view:
        before = _all(view)
        writer.start()
        writer.join(0.2)  # an engine may make its writers wait for its readers
        assert _all(view) == before
        assert view.get(b"check\0later") is None
    writer.join()
    with engine.read() as view:
        assert len(_all(view)) == len(before) + 2
