"""Tables on a terminal: what a command needs to be given is never cut."""

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from orchestrator.cli.table import Rows
from orchestrator.cli.text import status_text
from registry_api import AgentStatus, PhaseStatus, TaskStatus

IDS = ["builder-131415-95ffd1", "a", "レビュー-77"]


def lines(rows, width):
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(rows)
    return console.file.getvalue().splitlines()


def shown(width):
    rows = Rows(
        "agent", "status", "progress", "running", "message", optional=("running", "progress")
    )
    for name in IDS:
        rows.add_row(
            name, status_text("running"), "██░░ 20%", "12 min", "[b]a long[/b]\x1b[31m " * 9
        )
    return lines(rows, width)


@pytest.mark.parametrize("width", [60, 80, 120, 300])
def test_ids_and_statuses_are_never_cut(width):
    """On a narrow terminal columns are left out, and the message is cut."""
    found = shown(width)
    assert len(found) == len(IDS) + 1
    assert all(cell_len(line.rstrip()) <= width for line in found)
    for name, line in zip(IDS, found[1:], strict=True):
        assert line.startswith(f"{name} ")
        assert "● running" in line
        assert "[b]a long" in line
        assert "\x1b" not in line
    assert ("running" in found[0]) == (width > 60)
    assert "message" in found[0]


def test_a_pipe_gets_whole_lines(capsys, monkeypatch):
    """Where the output is no terminal there is nothing to fit: grep finds what it looks for."""
    from orchestrator.cli.table import output

    monkeypatch.delenv("COLUMNS", raising=False)
    rows = Rows("agent", "message")
    rows.add_row("a", "x" * 300 + " end")
    output().print(rows)
    assert "x end" in capsys.readouterr().out


@pytest.mark.parametrize("status", [*AgentStatus, *TaskStatus, *PhaseStatus])
def test_each_status_has_a_shape_beside_its_colour(status):
    """A colour alone tells nothing on a terminal without colours, or to some eyes."""
    mark, said = status_text(status).plain.split(" ", 1)
    assert mark in "●✓✕▲○"
    assert said == status


def test_what_an_agent_calls_its_status_is_text():
    """It is shown without control characters, also beside a shape."""
    rows = Rows("status", "message")
    rows.add_row(status_text("run\x1b]0;title\x07ning", where="a\x1b[2Jb"), "x")
    assert "\x1b" not in "".join(lines(rows, 80))
    assert "\x07" not in "".join(lines(rows, 80))
