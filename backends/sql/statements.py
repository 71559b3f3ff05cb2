"""Every statement of the store, in SQLAlchemy Core; ``compiled.py`` compiles it to driver SQL."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Executable,
    Table,
    Text,
    and_,
    bindparam,
    cast,
    delete,
    func,
    literal_column,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.schema import CreateIndex, CreateSequence, CreateTable

from backends.sql import schema
from backends.sql.rows import TABLES, codec
from registry_api.records import FILTERS, HISTORIES, KEY_FIELD, MOMENT, SORT, TEXT, Kind

__all__ = ["SUMMARY", "Flavour", "ddl", "fragments", "statements"]


@dataclass(frozen=True, slots=True)
class Flavour:
    """What differs between engines: the dialect, its INSERT with ON CONFLICT, substring search."""

    dialect: Dialect
    insert: Callable[[Table], Any]
    position: str  # the function that returns a substring's position, 0 if none
    limit: str  # the clause that bounds a page
    greatest: str  # the function that returns the greatest of its arguments
    drawn: str  # the last number that the feed's sequence has given out, NULL without one
    without: frozenset[str] = frozenset()  # the indexes that it cannot have

    def has_index(self, name: str) -> bool:
        """Return whether the engine has an index."""
        return name not in self.without


def table_of(kind: Kind) -> Table:
    """Return the table of a kind."""
    return schema.metadata.tables[TABLES[kind]]


def _columns(kind: Kind) -> list[Column[Any]]:
    table = table_of(kind)
    return [table.c[name] for name in codec(kind).columns]


def _is(table: Table, *names: str) -> ColumnElement[bool]:
    return and_(*(table.c[name] == bindparam(name) for name in names))


def _upsert(flavour: Flavour, table: Table, *, keep: tuple[str, ...] = ()) -> Executable:
    keys = [c.name for c in table.primary_key]
    row: dict[str, Any] = {c.name: bindparam(c.name) for c in table.columns}
    put = flavour.insert(table).values(row)
    changed = {n: put.excluded[n] for n in row if n not in keys and n not in keep}
    statement: Executable = put.on_conflict_do_update(index_elements=keys, set_=changed)
    return statement


def _insert_new(flavour: Flavour, table: Table, *key: str) -> Executable:
    """Insert a row unless its key is taken: then the row count is 0 and nothing fails."""
    put = flavour.insert(table).values({c.name: bindparam(c.name) for c in table.columns})
    statement: Executable = put.on_conflict_do_nothing(index_elements=list(key))
    return statement


def statements(flavour: Flavour) -> dict[str, Executable]:
    """Return every fixed statement by name; parameters are named like the columns."""
    tasks, agents, feed = schema.tasks, schema.agents, schema.feed
    counters, meta, latest = schema.counters, schema.meta, schema.agent_progress_latest
    out: dict[str, Executable] = {
        "head": select(
            tasks.c.lineage,
            tasks.c.revision,
            select(func.max(feed.c.number))
            .where(feed.c.task_id == tasks.c.task_id)
            .scalar_subquery(),
            tasks.c.feed_floor,
            tasks.c.chain,
        ).where(_is(tasks, "task_id")),
        "positions": select(tasks.c.task_id, tasks.c.lineage, tasks.c.revision, tasks.c.chain),
        "task_state": select(
            tasks.c.lineage,
            tasks.c.revision,
            tasks.c.status,
            tasks.c.recorded_status,
            tasks.c.phases,
            tasks.c.agents,
            tasks.c.active_agents,
            tasks.c.expired_before,
            tasks.c.chain,
            *_feed_state(flavour),
        ).where(_is(tasks, "task_id")),
        "put_task": _upsert(flavour, tasks),
        "set_task": update(tasks)
        .where(_is_as(tasks, task_id="of_task"))
        .values({name: bindparam(name) for name in codec(Kind.TASK).columns if name != "task_id"}),
        "advance": update(tasks)
        .where(_is_as(tasks, task_id="of_task"))
        .values(
            {
                n: bindparam(n)
                for n in (
                    "revision",
                    "updated_at",
                    "chain",
                    "status",
                    "phases",
                    "agents",
                    "active_agents",
                )
            }
        ),
        "advance_alone": update(tasks)
        .where(_is_as(tasks, task_id="of_task"))
        .values({n: bindparam(n) for n in ("revision", "updated_at", "chain")}),
        "set_expired": update(tasks)
        .where(_is_as(tasks, task_id="of_task"))
        .values(feed_floor=bindparam("feed_floor"), expired_before=bindparam("expired_before")),
        "oldest_changes": select(feed.c.number, feed.c.changeset_id, feed.c.at)
        .where(_is(feed, "task_id"))
        .order_by(feed.c.number)
        .limit(bindparam("limit"))
        .offset(literal_column("0")),
        "feed_ages": select(
            feed.c.number, feed.c.task_id, feed.c.changeset_id, feed.c.at, _is_followed()
        )
        .where(feed.c.number > bindparam("number"))
        .order_by(feed.c.number)
        .limit(bindparam("limit"))
        .offset(literal_column("0")),
        "drop_latest": delete(latest).where(_is(latest, "task_id")),
        "load_task_row": select(
            *_columns(Kind.TASK),
            tasks.c.lineage,
            tasks.c.revision,
            tasks.c.updated_at,
            tasks.c.chain,
        ).where(_is(tasks, "task_id")),
        "agent_statuses": select(agents.c.status).distinct().where(_is(agents, "task_id")),
        "count_agent_statuses": select(agents.c.status, func.count())
        .where(_is(agents, "task_id"))
        .group_by(agents.c.status),
        "phase_statuses": select(schema.phases.c.status)
        .distinct()
        .where(_is(schema.phases, "task_id")),
        "agent_status": select(agents.c.status, agents.c.last_update).where(
            _is(agents, "task_id", "agent_id")
        ),
        "report_on_agent": update(agents)
        .where(_is_as(agents, task_id="of_task", agent_id="of_agent"))
        .values({n: bindparam(n) for n in ("status", "progress", "last_update")}),
        "report_again": update(agents)
        .where(_is_as(agents, task_id="of_task", agent_id="of_agent", status="of_status"))
        .values({n: bindparam(n) for n in ("progress", "last_update")}),
        "seen_agent": update(agents)
        .where(_is_as(agents, task_id="of_task", agent_id="of_agent"))
        .values(last_update=bindparam("last_update")),
        "put_latest": _upsert(flavour, latest),
        "load_agent": select(*_columns(Kind.AGENT)).where(_is(agents, "task_id", "agent_id")),
        "load_latest_of": select(*(latest.c[n] for n in codec(Kind.PROGRESS).columns)).where(
            _is(latest, "task_id", "agent_id")
        ),
        "load_latest": select(*(latest.c[n] for n in codec(Kind.PROGRESS).columns))
        .where(_is(latest, "task_id"))
        .order_by(latest.c.agent_id),
        "replayed": select(
            feed.c.number, feed.c.lineage, feed.c.revision, feed.c.digest, feed.c.chain
        ).where(_is(feed, "task_id", "changeset_id")),
        "feed_state": select(*_feed_state(flavour)),
        "task_floor": select(tasks.c.feed_floor).where(_is(tasks, "task_id")),
        "add_change": _add_change(flavour),
        "changes": _feed_page(feed.c.number > bindparam("number")),
        "task_changes": _feed_page(_is(feed, "task_id"), feed.c.number > bindparam("number")),
        "drop_changes": delete(feed).where(
            _is(feed, "task_id"), feed.c.number <= bindparam("number")
        ),
        "drop_whole_feed": delete(feed),
        "drop_feed": delete(feed).where(_is(feed, "task_id")),
        "feed_length": select(func.count()).select_from(feed).where(_is(feed, "task_id")),
        "count": flavour.insert(counters)
        .values(kind=bindparam("kind"), status=bindparam("status"), n=bindparam("n"))
        .on_conflict_do_update(
            index_elements=["kind", "status"], set_={"n": counters.c.n + bindparam("n")}
        ),
        "counts": select(counters.c.kind, counters.c.status, counters.c.n).where(
            counters.c.n != literal_column("0")
        ),
        "read_meta": select(meta.c.value).where(_is(meta, "name")),
        "write_meta": _upsert(flavour, meta),
        "raise_meta": _raise_meta(flavour),
    }
    for kind, name in TABLES.items():
        out |= _of_kind(flavour, kind, name)
    if flavour.dialect.supports_sequences:
        parts = (out["add_progress"], out["put_latest"], out["report_again"])
        out["report"] = _at_once(*parts)
    return out


def _at_once(add: Any, put_latest: Any, again: Any) -> Executable:
    """Return one statement for a report: it returns how many rows were added, and were updated.

    Only for a database behind a network: a statement costs more there than its work.
    """
    added = add.returning(literal_column("1")).cte("added")
    latest = put_latest.cte("latest")
    agent = again.returning(literal_column("1")).cte("agent")
    counted = (select(func.count()).select_from(part).scalar_subquery() for part in (added, agent))
    return select(*counted).add_cte(latest)


def _raise_meta(flavour: Flavour) -> Executable:
    """Set a number in ``meta`` unless it is higher: in one statement, since others may raise it."""
    meta = schema.meta
    put = flavour.insert(meta).values(name=bindparam("name"), value=bindparam("value"))
    numbers = (cast(column, BigInteger) for column in (meta.c.value, put.excluded.value))
    higher = getattr(func, flavour.greatest)(*numbers)
    statement: Executable = put.on_conflict_do_update(
        index_elements=["name"], set_={"value": cast(higher, Text)}
    )
    return statement


def _meta_value(name: str) -> Any:
    meta = schema.meta
    return select(meta.c.value).where(meta.c.name == literal_column(f"'{name}'")).scalar_subquery()


def _add_change(flavour: Flavour) -> Executable:
    """Insert a feed line; without a number it gets the next one of the sequence, and returns it."""
    if not flavour.dialect.supports_sequences:
        return _insert_new(flavour, schema.feed, "task_id", "changeset_id")
    row: dict[str, Any] = {c.name: bindparam(c.name) for c in schema.feed.columns}
    row["number"] = func.coalesce(row["number"], schema.feed_number.next_value())
    put = flavour.insert(schema.feed).values(row)
    put = put.on_conflict_do_nothing(index_elements=["task_id", "changeset_id"])
    statement: Executable = put.returning(schema.feed.c.number)
    return statement


def _feed_state(flavour: Flavour) -> tuple[Any, ...]:
    newest = select(func.max(schema.feed.c.number)).scalar_subquery()
    names = ("feed_id", "feed_floor", "last_number", "stamp.role")
    return (*map(_meta_value, names), newest, literal_column(flavour.drawn))


def _is_as(table: Table, **names: str) -> ColumnElement[bool]:
    """Compare with parameters of other names: the SET of an UPDATE uses the columns' names."""
    return and_(*(table.c[column] == bindparam(name) for column, name in names.items()))


def _is_followed() -> Any:
    """Whether a feed line is not its task's newest one."""
    later = schema.feed.alias("later")
    same = later.c.task_id == schema.feed.c.task_id
    return select(later.c.number).where(same, later.c.number > schema.feed.c.number).exists()


def _feed_page(*where: ColumnElement[bool]) -> Executable:
    feed = schema.feed
    return (
        select(
            feed.c.number,
            feed.c.lineage,
            feed.c.revision,
            feed.c.digest,
            feed.c.chain,
            feed.c.changeset,
        )
        .where(*where)
        .order_by(feed.c.number)
        .limit(bindparam("limit"))
        .offset(literal_column("0"))
    )


def _of_kind(flavour: Flavour, kind: Kind, name: str) -> dict[str, Executable]:
    table, key = table_of(kind), KEY_FIELD[kind]
    out: dict[str, Executable] = {
        f"drop_all_{name}": delete(table).where(_is(table, "task_id")),
        f"load_{name}": select(*_columns(kind)).where(_is(table, "task_id")).order_by(table.c[key]),
    }
    if kind is Kind.TASK:
        return out
    out |= {
        f"has_{name}": select(table.c[key]).where(_is(table, "task_id", key)),
        f"drop_{name}": delete(table).where(_is(table, "task_id", key)),
        f"count_{name}": select(func.count()).select_from(table).where(_is(table, "task_id")),
    }
    if kind in HISTORIES:
        out[f"one_{name}"] = select(*_columns(kind)).where(_is(table, "task_id", key))
        out[f"add_{name}"] = _insert_new(flavour, table, "task_id", key)
    else:
        out[f"put_{name}"] = _upsert(flavour, table)
    return out


# -- queries: fragments that the store joins with AND ------------------------------------------

SUMMARY = (
    "task_id",
    "description",
    "status",
    "recorded_status",
    "priority",
    "created_at",
    "updated_at",
    "revision",
    "phases",
    "current_phase_index",
    "agents",
    "active_agents",
)


def fragments(flavour: Flavour) -> dict[str, dict[str, Any]]:
    """Return per kind: ``select`` and ``order`` clauses, and a condition for every filter."""
    return {kind.value: _fragments(flavour, kind) for kind in Kind}


def _fragments(flavour: Flavour, kind: Kind) -> dict[str, Any]:
    table = table_of(kind)
    sort = table.c[SORT[kind]]
    places = [sort, table.c.task_id]
    if kind not in {Kind.TASK, Kind.PHASE, Kind.AGENT}:
        places.append(table.c[KEY_FIELD[kind]])
    local = [p for p in places if p.name != "task_id"]
    names = {p.name: f"after_{n}" for n, p in enumerate(places)}
    found = getattr(func, flavour.position)

    def after(columns: list[Any], *, newest: bool) -> Any:
        left = tuple_(*columns)
        right = tuple_(*(bindparam(names[c.name], type_=c.type) for c in columns))
        return left < right if newest else left > right

    def contains(*columns: str) -> Any:
        return or_(*(found(table.c[c], bindparam("text")) > literal_column("0") for c in columns))

    columns = [table.c[n] for n in SUMMARY] if kind is Kind.TASK else _columns(kind)
    out: dict[str, Any] = {
        "select": select(*columns),
        "limit": flavour.limit,
        "order": {
            "oldest": ", ".join(f"{table.name}.{p.name}" for p in places),
            "newest": ", ".join(f"{table.name}.{p.name} DESC" for p in places),
        },
        "after": {
            "oldest": after(places, newest=False),
            "newest": after(places, newest=True),
            "oldest_in_task": after(local, newest=False),
            "newest_in_task": after(local, newest=True),
        },
    }
    where: dict[str, Any] = {}
    if kind is Kind.TASK:
        where["status"] = table.c.status == bindparam("status")
        where["since"] = sort >= bindparam("since")
        where["until"] = sort < bindparam("until")
        where["text"] = contains("description", "task_id")
    else:
        where["task_id"] = table.c.task_id == bindparam("task_id")
        where["since"] = table.c[MOMENT[kind]] >= bindparam("since")
        where["text"] = contains(*TEXT[kind])
        for name, column in FILTERS[kind].items():
            field = "active" if name == "active" else column
            where[name] = table.c[field] == bindparam(name)
    out["where"] = where
    return out


def ddl(flavour: Flavour) -> list[Any]:
    """Return the statements that create the schema ``schema.VERSION`` in an empty database."""
    out: list[Any] = []
    if flavour.dialect.supports_sequences:  # SQLite has one writer, who counts
        out.append(CreateSequence(schema.feed_number))
    for table in schema.metadata.sorted_tables:
        if table.info.get("shared") and not flavour.dialect.supports_sequences:
            continue
        out.append(CreateTable(table))
        indexes = sorted(table.indexes, key=lambda i: str(i.name))
        out += [CreateIndex(i) for i in indexes if flavour.has_index(str(i.name))]
    return out
