"""What a write changes in a document, and recovery after a kill (document/patch.py)."""

import json
import os
import subprocess
import sys
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.json_files.document.patch import Patch
from backends.json_files.document.writer import write_in_place
from contract_tests import build
from registry_api import Legacy, find_capability, load_settings, open_store
from tests import legacy
from tests.json_files.reading import reading

TEXTS = st.binary(min_size=1, max_size=60)


@given(TEXTS, TEXTS)
def test_a_patch_leads_from_one_document_to_the_other(before, after):
    """A patch works for any two texts, and nothing after the new end stays."""
    assert Patch.between(before, after).applied(before) == after
    assert Patch.whole(after).applied(before) == after


# A document and its successor: changed, longer or shorter, in several sectors.
WORDS = st.text('{}[]":,ab12 ', max_size=40).map(lambda word: word.encode() * 199)
DOCUMENTS = st.tuples(WORDS, WORDS, WORDS, WORDS).map(
    lambda w: (w[0] + w[1] + w[3], w[0] + w[2] + w[3])
)


class Disk:
    """The effects of a write on a file: ``steps`` are its texts, None for a sync; each call writes
    up to a multiple of ``piece`` bytes, and the rest in pieces of that size.
    """

    def __init__(self, path, before, piece):
        self.path, self.steps, self.piece = path, [before], piece

    def note(self):
        self.steps.append(self.path.read_bytes())

    def written(self, monkeypatch, patch):
        pwrite, ftruncate = os.pwrite, os.ftruncate

        def in_pieces(fd, data, offset):
            done = 0
            while done < len(data):
                following = self.piece - (offset + done) % self.piece
                done += pwrite(fd, data[done : done + following], offset + done)
                self.note()
            return done

        def truncated(fd, size):
            ftruncate(fd, size)
            self.note()

        with monkeypatch.context() as patched, self.path.open("r+b") as file:
            patched.setattr(os, "pwrite", in_pieces)
            patched.setattr(os, "ftruncate", truncated)
            write_in_place(file.fileno(), patch, sync=lambda fd: self.steps.append(None))


def written(tmp_path_factory, before, after, *, piece):
    path = tmp_path_factory.getbasetemp() / "document"
    path.write_bytes(before)
    disk, patch = Disk(path, before, piece), Patch.between(before, after)
    with pytest.MonkeyPatch.context() as monkeypatch:
        disk.written(monkeypatch, patch)
    assert path.read_bytes() == after
    return patch, disk.steps


def is_settled(patch, before, after, found, *, rebooted=False):
    """Return whether recovery knows what to do with a text: nothing, or finish or undo a write."""
    if found in {before, after}:
        return True
    if not patch.is_torn(found, rebooted=rebooted) or patch.applied(found) != after:
        return False
    assert patch.undone(found) == before
    return True


@given(DOCUMENTS)
def test_a_write_killed_anywhere_is_known_and_finished(tmp_path_factory, texts):
    """The kill comes between any two pages; and no reader finds NUL meanwhile."""
    patch, steps = written(tmp_path_factory, *texts, piece=4096)
    for found in filter(None, steps):
        assert is_settled(patch, *texts, found)
        assert b"\x00" not in found


@given(DOCUMENTS, st.data())
def test_a_write_that_a_power_loss_mixed_is_known_and_finished(tmp_path_factory, texts, data):
    """Each sector, and the length, is as of any moment since the last sync; what was never written
    reads as NUL.
    """
    patch, steps = written(tmp_path_factory, *texts, piece=512)
    synced = [n for n, step in enumerate(steps) if step is None]
    begin = data.draw(st.sampled_from([0, *synced]))
    end = next((n for n in synced if n > begin), len(steps))
    moments = ([s for s in steps[:begin] if s is not None] or [steps[0]])[-1:]
    moments += [s for s in steps[begin:end] if s is not None]
    found = b""
    size = len(data.draw(st.sampled_from(moments)))
    while len(found) < size:
        moment = data.draw(st.sampled_from(moments))
        found += moment[len(found) : len(found) + 512].ljust(512, b"\x00")
    assert is_settled(patch, *texts, found[:size], rebooted=True)


@given(DOCUMENTS, st.data())
def test_what_another_program_wrote_is_not_taken_for_a_torn_write(texts, data):
    """If one byte equals neither the old nor the new text, another program wrote the text."""
    before, after = texts
    patch = Patch.between(before, after)
    found = bytearray(data.draw(st.sampled_from([t for t in texts if t] or [b"x"])))
    found[data.draw(st.integers(0, len(found) - 1))] = ord("#")
    assert not is_settled(patch, *texts, bytes(found), rebooted=True)


def test_a_change_that_was_taken_back_is_another_programs():
    """Our write is complete but not acknowledged; a legacy program sets one of two fields back.
    Within one page this is not an interrupted write of ours, as long as the host was not rebooted.
    """
    before = b'{"a": "running", "b": "running"}'
    patch = Patch.between(before, b'{"a": "blocked", "b": "blocked"}')
    assert not patch.is_torn(b'{"a": "blocked", "b": "running"}', rebooted=False)
    assert not patch.is_torn(b'{"a": "running", "b": "blocked"}', rebooted=False)


def test_a_text_of_another_length_is_not_taken_for_a_torn_write():
    """A text longer or shorter than both is a legacy program's."""
    patch = Patch.between(b"[1, 2]", b"[1, 2, 3]")
    assert patch.is_torn(b"[1, 2]  ", rebooted=False)
    for found in (b"[1, 2", b"[1, 2, 3] ", b""):
        assert not patch.is_torn(found, rebooted=True)


def test_a_small_change_of_a_large_document_is_small():
    """The size of the intent and of the write depends on the change, not on the document."""
    before = b"{" + b'"key": 1, ' * 10_000 + b"}"
    after = before[:50_000] + b"2" + before[50_001:]
    assert len(Patch.between(before, after).data) <= 1


@given(TEXTS, TEXTS)
def test_what_is_written_is_what_the_patch_says(tmp_path_factory, before, after):
    """The write in place gives the new text, whatever the sizes."""
    path = tmp_path_factory.getbasetemp() / "document"
    path.write_bytes(before)
    with path.open("r+b") as file:
        write_in_place(file.fileno(), Patch.between(before, after), sync=lambda fd: None)
    assert path.read_bytes() == after


def grow_and_shrink(ours, theirs):
    """Write one document as we do, and another one as legacy programs do, in turn."""
    with closing(open_store(load_settings(ours, env={}))) as store:
        for n in range(300):
            name, filler = f"agent{n % 20}", "x" * (n % 50)
            agent = build.agent("TASK-1", name, extra=json.dumps({"x": filler}))
            build.put(store, agent, expected=store.head("TASK-1").revision)

            def change(document, agent={"id": name, "status": "running", "x": filler}):  # noqa: B006  (it is only read)
                others = [a for a in document["agents"] if a["id"] != agent["id"]]
                document["agents"] = [*others, agent]

            legacy.edit(theirs / "TASK-1" / "AGENT_REGISTRY.json", change)


def test_a_reader_without_a_lock_is_no_worse_off_than_beside_a_legacy_program(tmp_path):
    """While a writer makes the document longer and shorter, a reader without a lock never finds NUL
    or an empty document. A torn read, which a single write can still cause, is rare, or no more
    frequent than beside a legacy writer at the same time: how frequent it is depends on how much of
    a core the reader gets.
    """
    folders = [
        legacy.write_task(tmp_path / name, "TASK-1", agents=[{"id": "a"}])
        for name in ("ours", "theirs")
    ]
    with (
        reading(folders[0] / "AGENT_REGISTRY.json", "task_id") as ours,
        reading(folders[1] / "AGENT_REGISTRY.json", "task_id") as theirs,
    ):
        grow_and_shrink(tmp_path / "ours", tmp_path / "theirs")
    assert ours.worst() == []
    assert len(ours.bad) <= max(6, len(theirs.bad)), (ours.bad, theirs.bad)


KILLED = """
import os, signal, sys
from backends.json_files.task import write_ahead
from contract_tests import build
from registry_api import load_settings, open_store

def torn(fd, patch, *, sync):
    os.pwrite(fd, b" " * (patch.size - patch.over.size), patch.over.size)
    done = 4096 - patch.start % 4096
    assert done < len(patch.data)
    os.pwrite(fd, patch.data[:done], patch.start)
    os.kill(os.getpid(), signal.SIGKILL)

store = open_store(load_settings(sys.argv[1], env={}))
store.load("TASK-1")
write_ahead.write_in_place = torn
note = '{"note":"' + "y" * 9000 + '"}'
build.put(store, build.agent("TASK-1", "ours", extra=note), expected=1)
"""


@pytest.mark.parametrize("garbage", [None, b"", b"{", b'\x00{"half": ', b"no json at all" * 99])
def test_a_torn_document_that_another_program_overwrites_is_made_anew(tmp_path, garbage):
    """Our write is killed, then a program overwrites the document and is killed too: our change is
    kept, the document is complete with the keys that only legacy programs know, and their bytes are
    kept.
    """
    folder = legacy.write_task(tmp_path, "TASK-1", agents=[{"id": "a", "status": "running"}], own=7)
    document = folder / "AGENT_REGISTRY.json"
    with closing(open_store(load_settings(tmp_path, env={}))) as store:
        store.load("TASK-1")
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert killed.returncode == -9
    with pytest.raises(json.JSONDecodeError):
        json.loads(document.read_bytes())
    if garbage is not None:
        document.write_bytes(garbage)
    with closing(open_store(load_settings(tmp_path, env={}))) as store:
        found = store.load("TASK-1")
        assert [a.agent_id for a in found.agents] == ["a", "ours"]
        value = json.loads(document.read_bytes())
        assert (value["own"], [a["id"] for a in value["agents"]]) == (7, ["a", "ours"])
        assert store.load("TASK-1").revision == 2
        kept = [p for p in find_capability(store, Legacy).problems() if "quarantine" in p]
    assert bool(kept) == bool(garbage)
