"""Imitations of the legacy programs' files."""

import json


def write_task(workspace, task_id, **keys):
    """Write a task folder with its document; return the folder."""
    folder = workspace / task_id
    for name in ("progress", "findings", "logs"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    document = {
        "task_id": folder.name,
        "task_description": "look-alike",
        "created_at": "2026-01-04T22:15:30.123456",
        "status": "INITIALIZED",
        "agents": [],
        "agent_hierarchy": {"orchestrator": []},
        "total_spawned": 0,
        "active_count": 0,
        "completed_count": 0,
        **keys,
    }
    (folder / "AGENT_REGISTRY.json").write_text(json.dumps(document, indent=2))
    return folder


PROGRAM = '''
"""A legacy program: edits the document under flock with plain json, in place, no fsync."""
import errno, fcntl, json, sys, time

def edit(path, change, *, timeout=10.0, hold=0.0):
    deadline = time.monotonic() + timeout
    with open(path, "r+") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise TimeoutError(path)
                time.sleep(0.1)
        document = json.load(file)
        change(document)
        time.sleep(hold)
        file.seek(0)
        file.write(json.dumps(document, indent=2))
        file.truncate()
        file.flush()
        fcntl.flock(file, fcntl.LOCK_UN)

def add_agent(name):
    def change(document):
        document["agents"].append({"id": name, "type": "legacy", "status": "running"})
        document["total_spawned"] = document.get("total_spawned", 0) + 1
    return change
'''

exec(PROGRAM)
