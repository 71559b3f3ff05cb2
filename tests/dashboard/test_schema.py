"""The API against its own schema, with valid and invalid requests: never a 500."""

import subprocess
import sys

import pytest

from tests import legacy
from tests.dashboard.serving import serving
from tests.proof import PROVING

CASES = "300" if PROVING else "10"
THERE = """
[parameters]
"path.task_id" = "TASK-1"
"path.agent_id" = "a"
"path.phase_index" = 0
"""


@pytest.mark.parametrize("places", ["any", "there"])
def test_schemathesis_finds_no_fault(tmp_path, places):
    """Each route, with generated values everywhere, or for an existing task: no 500, no status and
    no content type that the schema does not name.
    """
    agents = [{"id": "a", "type": "builder", "status": "running"}]
    phases = [{"id": "p", "order": 1, "name": "build", "status": "ESCALATED"}]
    workspace = tmp_path / "registry"
    legacy.write_task(workspace, "TASK-1", agents=agents, phases=phases, current_phase_index=0)
    (tmp_path / "schemathesis.toml").write_text(THERE if places == "there" else "")
    with serving(workspace, REGISTRY_RETIRE_SECONDS="0") as served:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli", "run", f"{served.url}/openapi.json"),
                *("-H", f"Authorization: Bearer {served.operator}"),
                *(
                    "--checks",
                    "not_a_server_error,status_code_conformance,content_type_conformance",
                ),
                *("--phases", "coverage,fuzzing", "--max-examples", CASES, "--seed", "1"),
                *("--exclude-path", "/api/events", "--request-timeout", "20", "--no-color"),
            ],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        assert "Tested: 23" in done.stdout
