"""The report of a run, also for texts that cannot be encoded."""

import orjson

from contract_tests.harness import Harness
from contract_tests.runner.report import _Run, _shortened


class Failed:
    """A test's report as pytest passes it."""

    nodeid = "contract_tests/test_values.py::test_text[yours]"
    failed, skipped, when, duration = True, False, "call", 0.1
    longreprtext = "E   assert '\ud800' == '?'"
    sections = (("last calls to the store", "commit('\udfff')"), ("seed", "1"))


def test_a_failure_with_a_lone_surrogate_can_be_written():
    """Tests send such text to stores; the report can be written and shows the text escaped."""
    run = _Run(lambda *_: None, False, 600.0, lambda: None)
    run.semantics[Failed.nodeid] = ""
    run.places[Failed.nodeid] = "yours", "values"
    run.pytest_runtest_logreport(Failed())
    written = orjson.dumps(run.failed)
    assert b"\\\\ud800" in written
    assert b"\\\\udfff" in written


def test_a_traceback_shows_the_frames_of_test_and_store_only():
    """Frames of pytest, pluggy and hypothesis, and of the suite's own runner, are left out."""
    shown = ["contract_tests/test_commit.py", "theirs/runner/store.py", "theirs/conftest.py"]
    left_out = [
        "site-packages/pluggy/_callers.py",
        "site-packages/_pytest/python.py",
        "site-packages/hypothesis/core.py",
        "contract_tests/runner/report.py",
        "contract_tests/conftest.py",
    ]
    lines = ["Traceback (most recent call last):"]
    for path in (*left_out, *shown):
        lines += [f'  File "/x/{path}", line 1, in call', f"    code of {path}"]
    text = _shortened("\n".join([*lines, "ValueError: why"]))
    assert [path for path in (*left_out, *shown) if path in text] == shown
    assert text.count("code of") == len(shown)
    assert text.endswith("ValueError: why")


def test_each_harness_has_a_name_of_its_own(tmp_path):
    """A harness's key is unique to its workspace and the same at each run."""
    kept = [Harness("memory", tmp_path / n / "workspace") for n in ("a", "b", "a")]
    assert kept[0].key == kept[2].key != kept[1].key
    assert kept[0].key.isalnum()
