"""The report of a run, also for texts that cannot be encoded."""

import orjson

from contract_tests.harness import Harness
from contract_tests.runner.report import _Run


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


def test_each_harness_has_a_name_of_its_own(tmp_path):
    """A harness's key is unique to its workspace and the same at each run."""
    kept = [Harness("memory", tmp_path / n / "workspace") for n in ("a", "b", "a")]
    assert kept[0].key == kept[2].key != kept[1].key
    assert kept[0].key.isalnum()
