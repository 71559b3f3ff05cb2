"""Programs of ours in which every use of a registry is known: each has a comment that names it."""

import re
from textwrap import dedent

LOCKS = """
import fcntl, json, os

class LockedRegistryFile:
    def __init__(self, path, timeout=10):
        self.path = path

    def __enter__(self):
        self.file = open(self.path, "r+")
        fcntl.flock(self.file, fcntl.LOCK_EX)
        self.data = json.load(self.file)  # load
        return self.data, self.file

    def __exit__(self, *why):
        self.file.close()

def read_registry_with_lock(registry_path):
    with open(registry_path) as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        return json.load(f)  # load

def write_registry_with_lock(registry_path, registry):
    with open(registry_path, "r+") as f:
        json.dump(registry, f)  # dump
        f.truncate()

def never_called(registry_path):
    with open(registry_path) as f:
        return json.load(f)  # load
"""

SERVER = """
import json, os
from pathlib import Path
from locks import LockedRegistryFile, read_registry_with_lock, write_registry_with_lock

BASE = os.environ.get("BASE", "/tmp")
REGISTRY = "registry/GLOBAL_REGISTRY.json"

def global_path(base=None):
    return os.path.join(base or BASE, "registry", "GLOBAL_REGISTRY.json")

def find_task_workspace(task_id):
    folder = f"{BASE}/{task_id}"
    if os.path.exists(f"{folder}/AGENT_REGISTRY.json"):  # probe
        return folder
    return None

def place_of(task_id):
    base = Path(BASE) / task_id
    if (base / "AGENT_REGISTRY.json").is_file():  # probe
        return base
    return None

def create(task_id):
    workspace = f"{BASE}/{task_id}"
    registry = {"agents": []}
    registry["phases"] = []
    with open(f"{workspace}/AGENT_REGISTRY.json", "w") as f:
        json.dump(registry, f)  # dump
    with open(global_path()) as f:
        everything = json.load(f)  # load
    everything["total_tasks"] += 1  # change
    everything.setdefault("tasks", {})[task_id] = {}  # change
    Path(global_path()).write_text(json.dumps(everything))  # dump

def deploy(task_id, agent):
    workspace = find_task_workspace(task_id)  # look-up
    path = f"{workspace}/AGENT_REGISTRY.json"
    with LockedRegistryFile(path) as (registry, f):  # locked file
        registry["agents"].append(agent)  # change
        registry["active_count"] = registry.get("active_count", 0) + 1  # change
        f.seek(0)
        f.write(json.dumps(registry))
        f.truncate()

def status(task_id):
    path = os.path.join(place_of(task_id), "AGENT_REGISTRY.json")  # look-up
    with LockedRegistryFile(path, timeout=5) as (registry, _):  # locked file
        active = [a for a in registry["agents"] if a["status"] == "running"]
    report = {"task": task_id, "active": len(active)}
    report["names"] = [a["id"] for a in active]
    return report

def kill(task_id, agent_id):
    path = Path(BASE, task_id) / "AGENT_REGISTRY.json"
    registry = read_registry_with_lock(str(path))  # locked read
    for agent in registry["agents"]:
        if agent["id"] == agent_id:
            agent["status"] = "terminated"  # change
            del agent["session"]  # change
    write_registry_with_lock(str(path), registry)  # locked write

class Service:
    def __init__(self, workspace):
        self.path = Path(workspace) / "AGENT_REGISTRY.json"
        self.other = Path(workspace) / "settings.json"

    def registry(self):
        if not self.path.exists():  # probe
            return None
        return json.loads(self.path.read_text())  # load

    def settings(self):
        if not self.other.exists():
            return None
        return json.loads(self.other.read_text())

    def agents(self):
        found = self.registry()  # helper
        if found is None:
            return []
        first = next((a for a in found["agents"] if a), None)
        first["seen"] = True  # change
        return found["agents"]

def all_of(root):
    paths = []
    for folder in os.listdir(root):
        path = os.path.join(root, folder, "AGENT_REGISTRY.json")
        if os.path.getsize(path):  # probe
            paths.append(path)
    for path in paths:
        with open(path) as f:
            yield json.load(f)  # load

def watched(name):
    return name in ["AGENT_REGISTRY.json", REGISTRY]  # name

def matching(root):
    for path in sorted(Path(root).glob("*/AGENT_REGISTRY.json")):  # look-up
        registry = load_any(path)  # helper
        registry.update(seen=True)  # change

def load_any(path):
    with open(path) as f:
        return json.load(f)  # load

def restore(path_of_copy, base):
    os.replace(path_of_copy, global_path(base))  # dump
"""

OTHERS = """
import json, os
from server import load_any

CONFIG = "config.json"

def read_config():
    with open(CONFIG) as f:
        return json.load(f)

def change_config():
    config = read_config()
    config["agents"] = []
    config["active_count"] = 1
    with open(CONFIG, "w") as f:
        json.dump(config, f)
    return load_any("other.json")

def logs(task_id):
    path = f"/tmp/{task_id}/logs.jsonl"
    if os.path.exists(path):
        with open(path) as f:
            return [json.loads(line) for line in f]
    return []

def about():
    return "the file AGENT_REGISTRY.json holds the agents of a task"

def exists(registry):
    registry["agents"] = []
    return registry.get("agents")
"""


def marked(text):
    """Return the (line, kind) pairs that the comments of a program name."""
    return sorted(
        (number, kind.strip())
        for number, line in enumerate(text.splitlines(), 1)
        if "  # " in line
        for kind in re.split(r"#", line.split("  # ", 1)[1])
    )


def written(folder, **programs):
    """Write programs as modules into a folder; return it."""
    for name, text in programs.items():
        (folder / f"{name}.py").write_text(dedent(text))
    return folder
