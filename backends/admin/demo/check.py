"""The demo's independent check: plain json and sqlite3, nothing of ours.

Reads every acknowledgement and looks for its write in the files; prints a JSON list of
[kind, task, id, when, found] on standard output. Where a write must be is said first: ``json``, the
documents and logs; ``sqlite``, the database, and reports in the logs too; ``both``.
"""

import fcntl
import json
import sqlite3
import sys
from pathlib import Path


def main(workspace: str, where: str, *acks: str) -> None:
    """Look for every acknowledged write."""
    root = Path(workspace)
    # First, since writers go on: what they acknowledge from now on is not looked for.
    said = [text.split() for name in acks for text in whole_lines(Path(name))]
    lines, agents = set(), set()
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
    if where != "json":
        path = root / ".registry" / "registry.sqlite3"
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        rows = set(connection.execute("SELECT task_id, entry_id FROM progress"))
        rows |= set(connection.execute("SELECT task_id, finding_id FROM findings"))
        lines &= rows
        held = set(connection.execute("SELECT task_id, agent_id FROM agents"))
        agents = agents & held if where == "both" else held
        connection.close()
    out = []
    for kind, task, key, when in said:
        found = (task, key) in (lines if kind == "line" else agents)
        out.append([kind, task, key, float(when), found])
    sys.stdout.write(json.dumps(out))


def locked(path: Path) -> str:
    """Return a document's text as it is while nobody writes it."""
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        return file.read()


def whole_lines(path: Path) -> list[str]:
    """Return the finished lines of a file that may be written just now."""
    return path.read_text().rpartition("\n")[0].splitlines()


if __name__ == "__main__":
    main(*sys.argv[1:])
