"""What the report of a run says, whatever the tests showed the store."""

import orjson

from contract_tests.harness import Harness
from contract_tests.report import _Run


class Failed:
    """A test's report, as pytest gives it."""

    nodeid = "contract_tests/test_values.py::test_text[yours]"
    failed, skipped, when, duration = True, False, "call", 0.1
    longreprtext = "E   assert '\ud800' == '?'"
    sections = (("what was asked of the store last", "commit('\udfff')"), ("seed", "1"))


def test_a_failure_with_a_lone_surrogate_can_be_written():
    """Tests show stores such text; the report is written all the same, and shows what it was."""
    run = _Run(lambda *_: None, False, 600.0, lambda: None)
    run.semantics[Failed.nodeid] = ""
    run.places[Failed.nodeid] = "yours", "values"
    run.pytest_runtest_logreport(Failed())
    written = orjson.dumps(run.failed)
    assert b"\\\\ud800" in written
    assert b"\\\\udfff" in written


def test_each_harness_has_a_name_of_its_own(tmp_path):
    """By which a server keeps the tests apart; the folder's own name is the same each time."""
    kept = [Harness("memory", tmp_path / n / "workspace") for n in ("a", "b", "a")]
    assert kept[0].key == kept[2].key != kept[1].key
    assert kept[0].key.isalnum()
