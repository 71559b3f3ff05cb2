"""backends.json_files.patch: what a write keeps of the document, and what is left after a kill."""

import json
import subprocess
import sys
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.json_files.inplace import write_in_place
from backends.json_files.patch import Patch
from registry_api import Legacy, find_capability, load_settings, open_store
from tests import legacy

TEXTS = st.binary(min_size=1, max_size=60)


@given(TEXTS, TEXTS)
def test_a_patch_leads_from_one_document_to_the_other(before, after):
    """Whatever differs; and nothing behind the new end stays."""
    assert Patch.between(before, after).applied(before) == after
    assert Patch.whole(after).applied(before) == after


@given(TEXTS, TEXTS, st.data())
def test_a_patch_mends_what_its_own_write_tore(before, after, data):
    """Byte 0 is NUL and any part of the patch is there: applied again, the document is whole."""
    patch = Patch.between(before, after)
    torn = bytearray(before.ljust(patch.size, b"\x00"))
    torn[0] = 0
    done = data.draw(st.integers(0, len(patch.data)))
    torn[patch.start : patch.start + done] = patch.data[:done]
    assert patch.applied(bytes(torn)) == after


def test_a_small_change_of_a_large_document_is_small():
    """What the intent holds and what is written follow the change, not the document."""
    before = b"{" + b'"key": 1, ' * 10_000 + b"}"
    after = before[:50_000] + b"2" + before[50_001:]
    assert len(Patch.between(before, after).data) <= 1


@given(TEXTS, TEXTS)
def test_what_is_written_is_what_the_patch_says(tmp_path_factory, before, after):
    """In place, whatever the sizes."""
    path = tmp_path_factory.getbasetemp() / "document"
    path.write_bytes(before)
    with path.open("r+b") as file:
        write_in_place(file.fileno(), Patch.between(before, after), sync=lambda fd: None)
    assert path.read_bytes() == after


KILLED = """
import os, signal, sys
from backends.json_files import write_ahead
from contract_tests import build
from registry_api import load_settings, open_store

def torn(fd, patch, *, sync):
    os.pwrite(fd, b"\\x00", 0)
    os.kill(os.getpid(), signal.SIGKILL)

store = open_store(load_settings(sys.argv[1], env={}))
store.load("TASK-1")
write_ahead.write_in_place = torn
build.put(store, build.agent("TASK-1", "ours"), expected=1)
"""


@pytest.mark.parametrize("garbage", [b"", b"{", b'\x00{"half": ', b"no json at all" * 99])
def test_a_torn_document_that_another_program_overwrites_is_made_anew(tmp_path, garbage):
    """Killed in its write, then overwritten by a program that is killed in turn: the write stands,
    the document is whole, keys that only older programs know are in it, their bytes are kept."""
    folder = legacy.write_task(tmp_path, "TASK-1", agents=[{"id": "a", "status": "running"}], own=7)
    document = folder / "AGENT_REGISTRY.json"
    with closing(open_store(load_settings(tmp_path, env={}))) as store:
        store.load("TASK-1")
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert killed.returncode == -9
    assert document.read_bytes()[:1] == b"\x00"
    document.write_bytes(garbage)
    with closing(open_store(load_settings(tmp_path, env={}))) as store:
        found = store.load("TASK-1")
        assert [a.agent_id for a in found.agents] == ["a", "ours"]
        value = json.loads(document.read_bytes())
        assert (value["own"], [a["id"] for a in value["agents"]]) == (7, ["a", "ours"])
        assert store.load("TASK-1").revision == 2
        kept = [p for p in find_capability(store, Legacy).problems() if "quarantine" in p]
    assert bool(kept) == bool(garbage)
