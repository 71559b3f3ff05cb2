"""What an agent must know about its task, the most important first, within a budget."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from orchestrator.rules.draft import Draft, extra_of
from registry_api import Finding, Phase, PhaseStatus, TaskSnapshot
from registry_api.records import Severity, json_text

__all__ = ["Accumulated", "accumulate"]

CHARACTERS_A_TOKEN = 4  # the estimate of legacy programs


@dataclass(frozen=True, slots=True, kw_only=True)
class Accumulated:
    """The text, and the headings of the sections that did not fit."""

    text: str
    left_out: tuple[str, ...] = ()


def accumulate(
    snapshot: TaskSnapshot,
    findings: Iterable[Finding],
    *,
    max_tokens: int,
    phase_index: int | None = None,
) -> Accumulated:
    """Return the task's context: its goal, the phase, what a review asked for, earlier phases.

    A section that does not fit is cut at the budget; the later ones are left out.
    """
    room = max_tokens * CHARACTERS_A_TOKEN
    kept: list[str] = []
    left_out: list[str] = []
    for heading, body in _sections(snapshot, findings, phase_index):
        if not body.strip():
            continue
        text = f"## {heading}\n{body.strip()}\n"
        if room <= len(heading) + 10:
            left_out.append(heading)
            continue
        if len(text) > room:
            text = text[: room - 2] + "…\n"
            left_out.append(f"{heading} (cut)")
        kept.append(text)
        room -= len(text)
    return Accumulated(text="\n".join(kept), left_out=tuple(left_out))


def _sections(
    snapshot: TaskSnapshot, findings: Iterable[Finding], index: int | None
) -> Iterator[tuple[str, str]]:
    task = snapshot.task
    context = json_text.parse_trusted(task.context.encode())
    said: dict[str, Any] = context if isinstance(context, dict) else {}
    current = Draft(snapshot).phase(index) if snapshot.phases else None
    yield "Task", task.description
    if current is not None:
        yield f"Phase {current.phase_index}: {current.name}", _phase(current)
        yield "What the review asks for", _rejection(snapshot, current)
    for name in ("background_context", "expected_deliverables", "success_criteria", "constraints"):
        yield name.replace("_", " ").capitalize(), _text(said.get(name))
    for handover in snapshot.handovers:
        lines = [handover.summary, *_bullets(handover.key_findings)]
        lines += [f"- blocker: {b}" for b in handover.blockers]
        lines += [f"- recommended: {r}" for r in handover.recommendations]
        yield f"Handover from phase {handover.from_phase_index}", "\n".join(lines)
    yield (
        "Important findings",
        "\n".join(
            f"- [{f.severity}] {f.agent_id}: {f.message}"
            for f in findings
            if f.severity in {Severity.HIGH, Severity.CRITICAL}
        ),
    )
    yield "Relevant files", _text(said.get("relevant_files"))


def _phase(phase: Phase) -> str:
    extra = extra_of(phase)
    lines = [phase.description]
    lines += [
        f"{name.replace('_', ' ')}:\n{_text(extra[name])}"
        for name in ("deliverables", "success_criteria")
        if extra.get(name)
    ]
    return "\n".join(line for line in lines if line)


def _rejection(snapshot: TaskSnapshot, phase: Phase) -> str:
    """Return what the phase's newest finished review found, while it is to be fixed."""
    if phase.status not in {
        PhaseStatus.REVISION_NEEDED,
        PhaseStatus.FIXING,
        PhaseStatus.ESCALATED,
    }:
        return ""
    of_phase = [r for r in snapshot.reviews if r.phase_index == phase.phase_index and r.verdict]
    if not of_phase:
        return ""
    newest = max(of_phase, key=lambda r: r.created_at)
    lines = []
    for verdict in snapshot.verdicts:
        if verdict.review_id == newest.review_id and verdict.verdict != "approved":
            lines.append(f"{verdict.verdict}: {verdict.notes}")
            lines.extend(
                _bullets(map(_finding, json_text.parse_trusted(verdict.findings.encode())))
            )
    return "\n".join(lines)


def _finding(value: Any) -> str:
    if isinstance(value, dict):
        said = value.get("message") or value.get("description")
        if isinstance(said, str):
            return f"[{value.get('severity', '?')}] {said}"
    return value if isinstance(value, str) else json_text.dump_text(value)


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "\n".join(_bullets(map(_finding, value)))
    return value if isinstance(value, str) else ""


def _bullets(texts: Iterable[str]) -> list[str]:
    return [f"- {text}" for text in texts]
