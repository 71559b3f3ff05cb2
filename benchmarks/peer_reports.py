"""``python peer_reports.py PEER FOLDER COUNT``: write reports with another project's storage.

Prints the seconds of each as JSON. Each peer writes, durably, what a report changes: an entry of
its history, its agent among eight, and the task's revision. It runs in an environment of its own
(requirements: peers.txt) and imports nothing of ours.
"""

import json
import sqlite3
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

AGENTS = 8


def sqlalchemy(folder):
    """Mapped classes in SQLite: WAL, synchronous=FULL."""
    from sqlalchemy import ForeignKey, create_engine, event
    from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

    class Base(DeclarativeBase):
        pass

    class Task(Base):
        __tablename__ = "tasks"
        task_id: Mapped[str] = mapped_column(primary_key=True)
        revision: Mapped[int]

    class Agent(Base):
        __tablename__ = "agents"
        agent_id: Mapped[str] = mapped_column(primary_key=True)
        task_id: Mapped[str] = mapped_column(ForeignKey("tasks.task_id"), primary_key=True)
        status: Mapped[str]
        progress: Mapped[int]
        last_update: Mapped[str]

    class Report(Base):
        __tablename__ = "reports"
        entry_id: Mapped[str] = mapped_column(primary_key=True)
        task_id: Mapped[str]
        agent_id: Mapped[str]
        timestamp: Mapped[str]
        status: Mapped[str]
        message: Mapped[str]
        progress: Mapped[int]

    engine = create_engine(f"sqlite:///{folder / 'orm.sqlite3'}")

    @event.listens_for(engine, "connect")
    def set_up(connection, _):
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")

    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(Task(task_id="t", revision=1))
        for n in range(AGENTS):
            session.add(
                Agent(task_id="t", agent_id=f"a{n}", status="running", progress=0, last_update="")
            )
        session.commit()

    def report(n):
        now = datetime.now(UTC).isoformat()
        with Session(engine) as session:
            values = {"status": "running", "progress": n % 100}
            session.add(
                Report(
                    entry_id=uuid4().hex,
                    task_id="t",
                    agent_id=f"a{n % AGENTS}",
                    timestamp=now,
                    message=f"step {n}",
                    **values,
                )
            )
            agent = session.get(Agent, (f"a{n % AGENTS}", "t"))
            agent.status, agent.progress, agent.last_update = "running", n % 100, now
            session.get(Task, "t").revision += 1
            session.commit()

    return report


def diskcache(folder):
    """A cache in SQLite: the task as one value, its history as a queue; synchronous=FULL."""
    from diskcache import Cache

    cache = Cache(str(folder / "cache"), sqlite_synchronous=2)
    agents = {f"a{n}": {"status": "running", "progress": 0} for n in range(AGENTS)}
    cache["t"] = {"revision": 1, "agents": agents}

    def report(n):
        now = datetime.now(UTC).isoformat()
        entry = {"agent_id": f"a{n % AGENTS}", "status": "running", "progress": n % 100}
        with cache.transact():
            task = cache["t"]
            task["revision"] += 1
            task["agents"][f"a{n % AGENTS}"] |= entry | {"last_update": now}
            cache["t"] = task
            cache.push({**entry, "timestamp": now, "message": f"step {n}"}, prefix="reports")

    return report


def langgraph(folder):
    """A checkpoint of the task's state, as a graph of agents saves it after each step."""
    from langgraph.checkpoint.base import empty_checkpoint
    from langgraph.checkpoint.sqlite import SqliteSaver

    saver = SqliteSaver(sqlite3.connect(folder / "graph.sqlite3", check_same_thread=False))
    saver.setup()
    saver.conn.execute("PRAGMA synchronous=FULL")
    agents = {f"a{n}": {"status": "running", "progress": 0} for n in range(AGENTS)}
    place = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}

    def report(n):
        nonlocal place
        now = datetime.now(UTC).isoformat()
        entry = {"status": "running", "progress": n % 100, "message": f"step {n}"}
        agents[f"a{n % AGENTS}"] = entry | {"last_update": now}
        checkpoint = empty_checkpoint()
        checkpoint["channel_values"] = {"agents": agents}
        checkpoint["channel_versions"] = {"agents": n + 1}
        place = saver.put(place, checkpoint, {"step": n, "source": "loop"}, {"agents": n + 1})

    return report


PEERS = {"sqlalchemy": sqlalchemy, "diskcache": diskcache, "langgraph": langgraph}


def main(peer, folder, count):
    """Write reports and print how long each took."""
    report = PEERS[peer](Path(folder))
    for n in range(20):
        report(n)
    samples = []
    for n in range(int(count)):
        start = time.perf_counter()
        report(20 + n)
        samples.append(time.perf_counter() - start)
    print(json.dumps(samples))


if __name__ == "__main__":
    main(*sys.argv[1:])
