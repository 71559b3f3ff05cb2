"""A model of role stamps: every interleaving of writers, switches, kills and power losses.

Stores 0, 1 and 2 are those of two moves, 0 to 1 and then 1 to 2. ``move`` is the source of the move
under way, ``phase`` 2 (the source is the writer of record) or 3 (its target is). Whatever the real
code makes durable in one go is one transition. ``Rules`` are the decisions of
docs/decisions/0021: with all of them no acknowledged write is lost; switched off alone, each of
them loses one, or leaves a registry that nobody can write to. The exception is ``recovered_first``:
without it callers are refused until the registry is opened again, but nothing is lost.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

WRITER, REPLICA, FENCED, NONE = "writer", "replica", "fenced", "no stamp"


@dataclass(frozen=True)
class Rules:
    """What the protocol demands."""

    checked: bool = True  # a store checks its role in the transaction that writes
    fenced_before_copy: bool = True  # the last catch-up comes after the fence
    closed_first: bool = True  # the old writer is fenced before the new one is opened
    marked: bool = True  # a switch marks "inside", durably, before it changes a stamp
    recovered_first: bool = True  # an operation that finds "inside" recovers before it works
    owned: bool = True  # a target that belongs to another registry or move is refused


@dataclass(frozen=True)
class World:
    """Everything durable, the gate, and the next step of each actor."""

    move: int = 0
    phase: int = 2
    journal: tuple[int, int] | None = None  # the move and phase in which a switch began
    inside: bool = False
    roles: tuple[str, ...] = (WRITER, REPLICA, NONE)
    contents: tuple[frozenset[str], ...] = (frozenset(), frozenset(), frozenset())
    acknowledged: frozenset[str] = frozenset()
    shared: frozenset[str] = frozenset()
    exclusive: str = ""
    steps: tuple[tuple[str, str], ...] = ()
    kills: int = 1
    power_losses: int = 0

    @property
    def writer(self) -> int:
        """The writer of record, by the phase record."""
        return self.move + (self.phase == 3)

    @property
    def other(self) -> int:
        """The other store of the move."""
        return self.move + (self.phase == 2)

    def step(self, actor: str) -> str:
        """Return an actor's next step."""
        return dict(self.steps)[actor]

    def to(self, actor: str, step: str, **changes: object) -> World:
        """Return the world after a transition of an actor."""
        steps = tuple((name, step if name == actor else s) for name, s in self.steps)
        return replace(self, steps=steps, **changes)  # type: ignore[arg-type]

    def stamped(self, store: int, role: str) -> tuple[str, ...]:
        """Return the roles, one of them changed."""
        return (*self.roles[:store], role, *self.roles[store + 1 :])

    def copied(self, source: int, target: int) -> tuple[frozenset[str], ...]:
        """Return the contents after the target has caught up with the source."""
        return self.put(target, self.contents[source])

    def put(self, store: int, writes: frozenset[str]) -> tuple[frozenset[str], ...]:
        """Return the contents with writes added to a store."""
        both = self.contents[store] | writes
        return (*self.contents[:store], both, *self.contents[store + 1 :])


def _commit(world: World, actor: str, store: int, then: str, rules: Rules) -> World:
    """Commit to a store and acknowledge, or refuse."""
    if rules.checked and world.roles[store] != WRITER:
        return world.to(actor, "refused")
    write = frozenset({actor})
    acknowledged = world.acknowledged | write
    return world.to(actor, then, contents=world.put(store, write), acknowledged=acknowledged)


def _local(world: World, me: str, rules: Rules) -> Iterator[World]:
    """A process of this workspace: passes the gate, commits, replicates as far as possible."""
    step = world.step(me)
    out = world.shared - {me}
    if step == "enter" and not world.exclusive:
        yield world.to(me, "inside", shared=world.shared | {me})
    elif step == "inside" and world.inside and rules.recovered_first:
        yield world.to(me, "recover", shared=out)
    elif step == "inside":
        yield _commit(world, me, world.writer, "replicate", rules)
    elif step == "replicate":
        yield world.to(me, "done", shared=out)  # a target that fails never fails the caller
        if world.phase == 2 and (world.roles[world.other] == REPLICA or not rules.checked):
            contents = world.put(world.other, frozenset({me}))
            yield world.to(me, "done", shared=out, contents=contents)
    elif step == "refused" and me in world.shared:
        yield world.to(me, "refused", shared=out)
    elif step == "recover" and world.journal is None:
        yield world.to(me, "enter")
    elif step == "recover" and world.step("switch") == "dead" and not world.shared:
        yield _recovered(world)


def _recovered(world: World) -> World:
    """Make the next change that recovery makes, while it holds the gate: the record decides.

    The store that is not the writer of record is closed first. The journal is cleared last.
    """
    rest = REPLICA if world.phase == 2 else FENCED
    if world.roles[world.other] == WRITER:
        return replace(world, roles=world.stamped(world.other, FENCED))
    if world.roles[world.writer] != WRITER:
        return replace(world, roles=world.stamped(world.writer, WRITER))
    if world.roles[world.other] != rest:
        return replace(world, roles=world.stamped(world.other, rest))
    return replace(world, journal=None, inside=False)


def _around(world: World, me: str, rules: Rules) -> Iterator[World]:
    """A process that opened store N around the gate, or from another host."""
    if world.step(me) == "enter":
        yield _commit(world, me, int(me[-1]), "done", rules)


def _stranger(world: World, me: str, rules: Rules) -> Iterator[World]:
    """Another registry that names store 1 as the target of a move of its own."""
    if world.step(me) == "enter":
        if rules.owned:
            yield world.to(me, "refused")
        else:
            yield world.to(me, "done", roles=world.stamped(1, REPLICA))


def _switch(world: World, me: str, rules: Rules) -> Iterator[World]:
    """The operator: 2 to 3, back to 2, to 3 again, then the next move up to its phase 3.

    Steps are named ``<direction><turn>.<what>``; the turn tells what comes afterwards.
    """
    step = world.step(me)
    turn, _, what = step.partition(".")
    source, target = world.move, world.move + 1
    forward = turn[0] == "f"
    old, new = (source, target) if forward else (target, source)
    order = _order(rules)
    free = not world.exclusive and not world.shared
    if what == "begin" and forward:  # the target of the next move is stamped, then filled
        begun = world.copied(source, target) if source else world.contents
        roles = world.stamped(target, REPLICA)
        yield world.to(me, f"{turn}.take", roles=roles, contents=begun)
    elif what == "begin":  # the source is brought up to date beside the writers
        journal = (world.move, world.phase)
        roles, contents = world.stamped(source, REPLICA), world.copied(target, source)
        yield world.to(me, f"{turn}.take", roles=roles, contents=contents, journal=journal)
    elif what == "take" and free:
        journal = (world.move, world.phase)
        yield world.to(me, f"{turn}.{order[0]}", exclusive=me, journal=journal)
    elif what == "mark":
        yield world.to(me, _after(order, step), inside=rules.marked)
    elif what == "fence":
        yield world.to(me, _after(order, step), roles=world.stamped(old, FENCED))
    elif what == "copy":
        yield world.to(me, _after(order, step), contents=world.copied(old, new))
    elif what == "advance":
        yield world.to(me, _after(order, step), phase=3 if forward else 2)
    elif what == "open":
        yield world.to(me, _after(order, step), roles=world.stamped(new, WRITER))
    elif what == "rest":  # a source that is written again is followed by its target
        role = FENCED if forward else REPLICA
        yield world.to(me, _after(order, step), roles=world.stamped(old, role))
    elif what == "clear":
        yield world.to(me, f"{turn}.release", inside=False, journal=None)
    elif what == "release":
        yield world.to(me, _TURNS[turn], exclusive="")
    elif what == "complete" and free:  # one replacement of the record; no stamp changes
        yield world.to(me, "f3.begin", move=world.move + 1, phase=2)


_TURNS = {"f1": "b1.begin", "b1": "f2.begin", "f2": "x.complete", "f3": "done"}


def _order(rules: Rules) -> list[str]:
    order = ["mark", "fence", "copy", "advance", "open", "rest", "clear"]
    if not rules.fenced_before_copy:
        order[1:3] = ["copy", "fence"]
    if not rules.closed_first:
        order.remove("open")
        order.insert(1, "open")
    return order


def _after(order: list[str], step: str) -> str:
    turn, _, what = step.partition(".")
    return f"{turn}.{order[order.index(what) + 1]}"


def _stopped(world: World, *, power: bool) -> World:
    """Kill the switch; a power loss ends every process of this host."""
    actors = [n for n, s in world.steps if n == "switch" or (power and n.startswith("local"))]
    for actor in actors:
        if world.step(actor) not in {"done", "refused"}:
            world = world.to(actor, "dead")
    gone = frozenset(actors)
    exclusive = "" if world.exclusive in gone else world.exclusive
    return replace(world, exclusive=exclusive, shared=world.shared - gone)


def _following(world: World, rules: Rules) -> Iterator[tuple[str, World]]:
    for actor, step in world.steps:
        if step in {"done", "dead"}:
            continue
        kind = {"l": _local, "a": _around, "o": _stranger, "s": _switch}[actor[0]]
        for then in kind(world, actor, rules):
            yield f"{actor} {step}", then
    if world.step("switch") not in {"done", "dead"}:
        if world.kills:
            yield "kill", replace(_stopped(world, power=False), kills=world.kills - 1)
        if world.power_losses:
            left = world.power_losses - 1
            yield "power loss", replace(_stopped(world, power=True), power_losses=left)


def _fault(world: World, *, ended: bool) -> str:
    """Return what is wrong, "" if nothing; at the end, after the next open has recovered."""
    if world.roles.count(WRITER) > 1:
        return "two writers of record"
    if not ended:
        return ""
    while world.journal is not None and world.step("switch") == "dead":
        committed = world.journal != (world.move, world.phase)
        if committed and not world.inside:
            break  # it was finished before "inside" was cleared
        world = _recovered(world)
    if world.roles[world.writer] != WRITER:
        return "nobody can write"
    if world.acknowledged - world.contents[world.writer]:
        return "an acknowledged write is lost"
    return ""


@dataclass
class Result:
    """The number of states, and the shortest trace to each kind of fault."""

    states: int = 0
    faults: dict[str, list[str]] = field(default_factory=dict)


def explore(
    actors: tuple[str, ...], rules: Rules, *, kills: int = 1, power_losses: int = 0
) -> Result:
    """Walk through every interleaving of the actors and a switch.

    Actors are ``local…``, ``around…N`` (on store N) and ``other``.
    """
    steps = (*((actor, "enter") for actor in actors), ("switch", "f1.take"))
    start = World(steps=steps, kills=kills, power_losses=power_losses)
    before: dict[World, tuple[World, str] | None] = {start: None}
    queue, result = deque([start]), Result()
    while queue:
        world = queue.popleft()
        result.states += 1
        following = list(_following(world, rules))
        fault = _fault(world, ended=not following)
        if fault:
            result.faults.setdefault(fault, _trace(before, world))
            continue
        for label, then in following:
            if then not in before:
                before[then] = (world, label)
                queue.append(then)
    return result


def _trace(before: dict[World, tuple[World, str] | None], world: World) -> list[str]:
    out: list[str] = []
    while (step := before[world]) is not None:
        out.append(step[1])
        world = step[0]
    return out[::-1]
