"""A legacy program of the demo: edits documents under flock, with plain json alone."""

import fcntl
import json
import random
import select
import sys
import time
from pathlib import Path


def main(workspace: str, acks: str, name: str) -> None:
    """Add agents until standard input ends; acknowledge each in ``acks``."""
    rng = random.Random(name)
    paths = [p for p in sorted(Path(workspace).glob("TASK-*/AGENT_REGISTRY.json")) if is_whole(p)]
    with Path(acks).open("w", buffering=1) as out:
        for n in range(10**9):
            if select.select([sys.stdin], [], [], 0.05)[0]:
                return
            path, key = rng.choice(paths), f"{name}-{n}"
            if not add_agent(path, key):
                sys.exit(f"{path} could not be locked within 10 s")
            out.write(f"agent {path.parent.name} {key} {time.monotonic()}\n")


def is_whole(path: Path) -> bool:
    """Return whether a legacy program finds the list of agents in a document: some are torn."""
    try:
        return isinstance(json.loads(path.read_bytes())["agents"], list)
    except (ValueError, KeyError, TypeError):
        return False


def add_agent(path: Path, key: str) -> bool:
    """Append an agent to a document, polling its flock every 100 ms for at most 10 s."""
    with path.open("r+") as file:
        for _ in range(100):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                time.sleep(0.1)
        else:
            return False
        document = json.load(file)
        document["agents"].append({"id": key, "type": "legacy", "status": "completed"})
        for counter in ("total_spawned", "active_count"):
            document[counter] = document.get(counter, 0) + 1
        file.seek(0)
        file.write(json.dumps(document, indent=2))
        file.truncate()
        file.flush()
        fcntl.flock(file, fcntl.LOCK_UN)
    return True


if __name__ == "__main__":
    main(*sys.argv[1:])
