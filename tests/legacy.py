"""Look-alikes of the older programs' files."""

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
