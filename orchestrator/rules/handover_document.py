"""A handover as a Markdown document with its data embedded, in the form of the legacy programs.

They read the JSON in the comment, and the headings only if there is none; so does our own reader.
"""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.rules.draft import extra_of
from orchestrator.rules.phases import DONE
from registry_api import Handover, TaskSnapshot
from registry_api.records import json_text

__all__ = ["handover_document"]

_BEGIN, _END = "<!-- HANDOVER_JSON_START", "HANDOVER_JSON_END -->"


def handover_document(snapshot: TaskSnapshot, handover: Handover) -> str:
    """Return the document of one handover of a task, with the phase's figures."""
    phase = snapshot.phase(handover.from_phase_index or 0)
    name = phase.name if phase is not None else ""
    artifacts = [a for a in _list(handover.artifacts) if isinstance(a, dict)]
    metrics = _metrics(snapshot, handover)
    data = {
        "phase_id": phase.phase_id if phase is not None else "",
        "phase_name": name,
        "created_at": handover.created_at.isoformat(),
        "summary": handover.summary,
        "key_findings": list(handover.key_findings),
        "blockers": list(handover.blockers),
        "recommendations": list(handover.recommendations),
        "artifacts": artifacts,
        "metrics": metrics,
    }
    # A ">" in the data could end the comment; as an escape it is the same JSON.
    embedded = json_text.dump_text(data).replace(">", "\\u003e")
    files = (f"`{one.get('path', '')}`: {one.get('description', '')}" for one in artifacts)
    parts = [
        f"# Handover: {_line(name)}",
        "## Summary",
        handover.summary or "None",
        "## Key Findings",
        _bullets(handover.key_findings),
        "## Blockers",
        _bullets(handover.blockers),
        "## Recommendations for Next Phase",
        _bullets(handover.recommendations),
        "## Artifacts Created",
        _bullets(files),
        "## Phase Metrics",
        _bullets(f"{key.replace('_', ' ')}: {value}" for key, value in metrics.items()),
        f"{_BEGIN}\n{embedded}\n{_END}",
    ]
    return "\n\n".join(parts) + "\n"


def _metrics(snapshot: TaskSnapshot, handover: Handover) -> dict[str, object]:
    """Return the figures of the phase: agents, revision rounds, seconds from start to approval."""
    index = handover.from_phase_index
    phase = snapshot.phase(index) if index is not None else None
    bound = [a for a in snapshot.agents if a.phase_index == index and a.review_id is None]
    found: dict[str, object] = {
        "agents": len(bound),
        "agents_completed": sum(a.status in DONE for a in bound),
        "reviews": sum(r.phase_index == index for r in snapshot.reviews),
    }
    if phase is not None:
        found["revision_rounds"] = phase.revision_round
        if phase.started_at is not None:
            took = handover.created_at - phase.started_at
            found["seconds"] = round(took.total_seconds())
        if extra_of(phase).get("forced_approval"):
            found["forced_approval"] = True
    return found


def _list(text: str) -> list[object]:
    value = json_text.parse_trusted(text.encode())
    return value if isinstance(value, list) else []


def _bullets(texts: Iterable[str]) -> str:
    return "\n".join(f"- {_line(text)}" for text in texts) or "None"


def _line(text: str) -> str:
    return " ".join(text.split())
