"""Pictures of the commands in a terminal: ``python -m tests.docs.terminal`` writes them below
``docs/pictures``, from what the commands print about a registry of this module's.
"""

import io
import os
import subprocess
import sys
import tempfile
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rich.console import Console
from rich.text import Text

from contract_tests import build
from registry_api import PhaseStatus, load_settings, open_migration, open_store
from registry_api.migration import MigrationPhase
from tests import legacy

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
COMMANDS = {
    "status": ["registry-backend", "status"],
    "top": ["registry-orchestrator", "top", "--count", "1"],
    "tasks": ["registry-orchestrator", "tasks"],
}
SHOWN = "~/project/.agent-workspace"  # in place of the temporary folder
_WIDTH = 92  # characters
_TASK = "TASK-20261201-091500-5ab4c1d2"
# Our own frame: rich's names a font of a foreign host.
_FRAME = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">
<style>
.{unique_id}-matrix, .{unique_id}-title {{ font-family: ui-monospace, monospace; }}
.{unique_id}-matrix {{ font-size: {char_height}px; line-height: {line_height}px; }}
.{unique_id}-title {{ font-size: 18px; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">{matrix}</g>
</g>
</svg>
"""


def fill(workspace):
    """Write a registry in phase 1: a task with active agents, and one of legacy programs."""
    now = datetime.now(UTC)

    def ago(minutes):
        return now - timedelta(minutes=minutes)

    stuck = {"id": "tester-2", "type": "tester", "status": "running", "progress": 40}
    legacy.write_task(workspace, "TASK-20261130-160201-77f0e9aa", agents=[stuck])
    with closing(open_migration(load_settings(workspace, env={}))) as migration:
        migration.switch(MigrationPhase.PARALLEL_WRITE, actor="operator")
    agents = [
        ("explorer-1", "explorer", "completed", 100, 41, "The form is validated in two places"),
        ("builder-1", "builder", "working", 70, 1, "7 of 10 fields use the new library"),
        ("builder-2", "builder", "working", 35, 2, "Moving the error texts"),
        ("tester-1", "tester", "blocked", 20, 24, "Waits for the test database"),
    ]
    with closing(open_store(load_settings(workspace, env={}))) as store:
        build.make(
            store,
            _TASK,
            build.phase(_TASK, name="investigate", status=PhaseStatus.APPROVED),
            build.phase(_TASK, 1, name="build", status=PhaseStatus.ACTIVE, started_at=ago(40)),
            *(
                build.agent(_TASK, name, type=kind, status=status, started_at=ago(42))
                for name, kind, status, *_ in agents
            ),
            description="Move the login page to the new form library",
            created_at=ago(60),
        )
        for name, _, status, progress, minutes, message in agents:
            said = build.report(
                _TASK,
                name,
                status=status,
                progress=progress,
                message=message,
                timestamp=ago(minutes),
            )
            build.put(store, said, expected=None)


def printed(command, workspace):
    """Return what a command prints in a terminal with colours."""
    program = Path(sys.executable).with_name(command[0])
    env = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "TERM": "xterm-256color"}
    done = subprocess.run(
        [program, *command[1:], "--workspace", str(workspace)],
        env=env | {"FORCE_COLOR": "1", "COLUMNS": str(_WIDTH)},
        check=True,
        capture_output=True,
        text=True,
    )
    shown = done.stdout.replace(str(workspace), SHOWN)
    return shown.rpartition("\x1b[1A\x1b[2K")[2]  # of a screen that was drawn again, the last


def picture(name, command, output):
    """Return a picture of a terminal that shows the output of a command."""
    console = Console(
        record=True, width=_WIDTH, file=io.StringIO(), force_terminal=True, highlight=False
    )
    console.print(Text.from_ansi(output.rstrip()), soft_wrap=True)
    return console.export_svg(title=" ".join(command), code_format=_FRAME, unique_id=name)


def write(folder):
    with tempfile.TemporaryDirectory() as place:
        (workspace := Path(place) / "workspace").mkdir()
        fill(workspace)
        for name, command in COMMANDS.items():
            output = printed(command, workspace)
            (folder / f"{name}.svg").write_text(picture(name, command, output))


if __name__ == "__main__":
    write(PICTURES)
