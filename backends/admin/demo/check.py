"""The demo's independent check: for json and sqlite it uses no code of this project.

Reads every acknowledgement and looks for its write in the files; prints a JSON list of
[kind, task, id, when, found] on standard output. The argument ``where`` says where each write must
be: ``json``, in the documents and logs; ``sqlite``, in the database, reports in the logs as well;
``both``, in all of them; the name or URL of another store, in that store, opened without the move.
"""

import fcntl
import json
import sqlite3
import sys
from pathlib import Path


def main(workspace: str, where: str, *acks: str) -> None:
    """Look for every acknowledged write."""
    root = Path(workspace)
    # Read these first: writers continue, and what they acknowledge from now on is not checked.
    said = [text.split() for name in acks for text in whole_lines(Path(name))]
    lines, agents = set[object](), set[object]()
    for folder in sorted(root.glob("TASK-*")):
        for log in (*folder.glob("*/*_progress.jsonl"), *folder.glob("*/*_findings.jsonl")):
            for text in log.read_text().splitlines():
                try:
                    lines.add((folder.name, json.loads(text).get("entry_id")))
                except (ValueError, AttributeError):
                    continue
        try:
            document = json.loads(locked(folder / "AGENT_REGISTRY.json"))
        except (OSError, ValueError):
            continue
        agents |= {(folder.name, a["id"]) for a in document["agents"]}
    if where in {"sqlite", "both"}:
        path = root / ".registry" / "registry.sqlite3"
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        rows = set(connection.execute("SELECT task_id, entry_id FROM progress"))
        rows |= set(connection.execute("SELECT task_id, finding_id FROM findings"))
        lines &= rows
        held = set(connection.execute("SELECT task_id, agent_id FROM agents"))
        agents = agents & held if where == "both" else held
        connection.close()
    if where not in {"json", "sqlite", "both"}:
        lines, agents = held_by(root, where)
    out = []
    for kind, task, key, when in said:
        found = (task, key) in (lines if kind == "line" else agents)
        out.append([kind, task, key, float(when), found])
    sys.stdout.write(json.dumps(out))


def held_by(root: Path, place: str) -> tuple[set[object], set[object]]:
    """Return the (task, id) of all reports and findings in a store, and those of its agents."""
    from registry_api import Kind, OpenContext, RecordQuery, load_plugins, load_settings
    from registry_api.client import all_records
    from registry_api.records import record_key
    from registry_api.workspace import usable

    settings, plugins = load_settings(root), load_plugins()
    scheme, _, location = usable(place, settings.places()).partition("://")
    context = OpenContext(settings=settings, plugins=plugins, location=location, read_only=True)
    store = plugins.factory(scheme)(context)
    found: dict[Kind, set[object]] = {
        kind: {(r.task_id, record_key(r)) for r in all_records(store, kind, RecordQuery())}
        for kind in (Kind.PROGRESS, Kind.FINDING, Kind.AGENT)
    }
    store.close()
    return found[Kind.PROGRESS] | found[Kind.FINDING], found[Kind.AGENT]


def locked(path: Path) -> str:
    """Return a document's text, read under a shared flock."""
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        return file.read()


def whole_lines(path: Path) -> list[str]:
    """Return the complete lines of a file that is still being written."""
    return path.read_text().rpartition("\n")[0].splitlines()


if __name__ == "__main__":
    main(*sys.argv[1:])
