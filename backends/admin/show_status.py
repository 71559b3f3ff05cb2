"""Text output of ``registry-backend status``: actual and stored counts, silent agents."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from registry_api.client import headline

__all__ = ["show_status"]


def show_status(status: dict[str, Any], console: Console) -> None:
    """Print what ``backends.admin.status.collect`` returned."""
    console.print(Text.assemble("Workspace  ", (status["workspace"], "bold")))
    console.print(_phase_line(status["migration"]))
    console.print()
    console.print(_headline(status), style="bold")
    console.print()
    console.print(_counts(status))
    for agent in status["silent_agents"]:
        line = f"  silent   {agent['agent_id']} of {agent['task_id']}: {_since(agent)}"
        console.print(line, soft_wrap=True)
    if status["warnings"]:
        console.print(
            f"\n{len(status['warnings'])} warning(s); the files named were left unchanged:"
        )
        for warning in status["warnings"]:
            console.print(Text(f"  {warning}"), soft_wrap=True)
    if status["next"]:
        console.print(f"\nNext: {status['next']}")


def _phase_line(migration: dict[str, Any]) -> Text:
    phase = migration["phase"]
    if phase is None or migration["target"] is None:
        done = migration["completed"]
        last = "".join(
            f"; the last move, {move['source']} -> {move['target']}, is complete"
            for move in done[-1:]
        )
        return Text(f"Store      {migration['writer_of_record']}, no move{last}")
    markers = [f"{'●' if n == phase else '○'} {n}" for n in range(1, 5)]
    first = f"0 {_name(migration['source'])} {'●' if phase == 0 else '○'}"
    line = "──".join([first, *markers])
    return Text(f"Phase      {line} {_name(migration['target'])}   ({migration['name']})")


def _name(place: str) -> str:
    """Return the name of a store without its location."""
    return place.partition("://")[0]


def _headline(status: dict[str, Any]) -> str:
    tasks, agents = status["counts"]["tasks"], status["counts"]["agents"]
    signs = [
        datetime.fromisoformat(a["last_sign"])
        for a in status["silent_agents"]
        if a["last_sign"] and a["task_id"] in status["silent_tasks"]
    ]
    return headline(
        all_tasks=tasks["total"],
        active_tasks=tasks["active"],
        active_agents=agents["active"],
        silent_tasks=tasks["silent"],
        silent_agents=agents["silent"],
        silent_since=max(signs, default=None),
    )


def _counts(status: dict[str, Any]) -> Table:
    table = Table(box=None, padding=(0, 3, 0, 0))
    table.add_column("")
    table.add_column("actual", justify="right")
    table.add_column("silent", justify="right")
    table.add_column("stored", justify="right")
    table.add_column("by status")
    stored_counts = status["stored_counts"]
    for noun in ("tasks", "agents"):
        counts = status["counts"][noun]
        by_status = ", ".join(f"{n} {name.lower()}" for name, n in counts["by_status"].items())
        stored = stored_counts.get(f"active_{noun}", "–")
        table.add_row(
            f"active {noun}", str(counts["active"]), str(counts["silent"]), str(stored), by_status
        )
    total = stored_counts.get("total_tasks", "–")
    table.add_row("all tasks", str(status["counts"]["tasks"]["total"]), "", str(total), "")
    spawned = stored_counts.get("total_agents_spawned", "–")
    table.add_row("all agents", str(status["counts"]["agents"]["total"]), "", str(spawned), "")
    return table


def _day(text: str) -> str:
    moment = datetime.fromisoformat(text)
    return f"{moment.day} {moment:%B %Y}"


def _since(agent: dict[str, Any]) -> str:
    if agent["last_sign"] is None:
        return f"{agent['status']}, no sign of life so far"
    silence = datetime.now(UTC) - datetime.fromisoformat(agent["last_sign"])
    days, (hours, seconds) = silence.days, divmod(silence.seconds, 3600)
    long = f"{days} days (since {_day(agent['last_sign'])})"
    if not days:
        long = f"{hours} h " * bool(hours) + f"{seconds // 60} min"
    return f"{agent['status']}, no sign of life for {long}"
