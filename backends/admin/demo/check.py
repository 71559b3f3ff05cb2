"""The demo's independent check: plain json and sqlite3, nothing of ours.

Reads every acknowledgement and looks for its write in the files; prints a JSON list of
[kind, task, id, when, found] on standard output. With ``both`` a write counts as found only where
both the JSON side and the SQLite side have it.
"""

import json
import sqlite3
import sys
from pathlib import Path


def main(workspace: str, both: str, *acks: str) -> None:
    """Look for every acknowledged write."""
    root = Path(workspace)
    lines, agents = set(), set()
    for folder in sorted(root.glob("TASK-*")):
        for log in (*folder.glob("*/*_progress.jsonl"), *folder.glob("*/*_findings.jsonl")):
            for text in log.read_text().splitlines():
                try:
                    lines.add((folder.name, json.loads(text).get("entry_id")))
                except (ValueError, AttributeError):
                    continue
        try:
            document = json.loads((folder / "AGENT_REGISTRY.json").read_text())
        except (OSError, ValueError):
            continue
        agents |= {(folder.name, a["id"]) for a in document["agents"]}
    if both == "both":
        path = root / ".registry" / "registry.sqlite3"
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        rows = set(connection.execute("SELECT task_id, entry_id FROM progress"))
        rows |= set(connection.execute("SELECT task_id, finding_id FROM findings"))
        lines &= rows
        agents &= set(connection.execute("SELECT task_id, agent_id FROM agents"))
        connection.close()
    out = []
    for name in acks:
        for text in Path(name).read_text().splitlines():
            kind, task, key, when = text.split()
            found = (task, key) in (lines if kind == "line" else agents)
            out.append([kind, task, key, float(when), found])
    sys.stdout.write(json.dumps(out))


if __name__ == "__main__":
    main(*sys.argv[1:])
