"""Handovers: the results of an approved phase for the next, made from its agents' reports."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from orchestrator.rules.draft import Draft, extra_of
from registry_api import Finding, Handover, Phase, ProgressEntry
from registry_api.records import Severity, json_text

__all__ = ["HandoverPlan", "leave"]

_MOST = 20  # of findings, blockers, recommendations each
_LONGEST = 500  # characters of one
_MOST_SEVERE_FIRST: list[str] = [*reversed(Severity)]


@dataclass(frozen=True, slots=True, kw_only=True)
class HandoverPlan:
    """What a handover is made from: an id, the phase's findings, each agent's newest report."""

    handover_id: str
    findings: tuple[Finding, ...] = ()
    reports: tuple[ProgressEntry, ...] = ()


def leave(draft: Draft, phase: Phase, plan: HandoverPlan, *, at: datetime) -> Handover:
    """Add the handover of a phase that was just approved."""
    bound = {a.agent_id for a in draft.bound(phase.phase_index)}
    reports = [r.message for r in plan.reports if r.agent_id in bound and r.message]
    said = extra_of(phase).get("review_summary")
    by_severity = sorted(plan.findings, key=lambda f: (_rank(f.severity), f.timestamp))
    later = [p.phase_index for p in draft.phases if p.phase_index > phase.phase_index]
    handover = Handover(
        task_id=phase.task_id,
        handover_id=plan.handover_id,
        from_phase_index=phase.phase_index,
        to_phase_index=later[0] if later else None,
        summary=_cut(said) if isinstance(said, str) else "\n".join(_some(reports)),
        key_findings=_some(
            f"[{f.severity}] {f.message}" for f in by_severity if _role(f) == "key_findings"
        ),
        blockers=_some(f.message for f in by_severity if _role(f) == "blockers"),
        recommendations=_some(f.message for f in by_severity if _role(f) == "recommendations"),
        artifacts=json_text.dump_text(_artifacts(by_severity)),
        created_at=at,
    )
    draft.put(handover)
    return handover


def _role(finding: Finding) -> str:
    return {"blocker": "blockers", "recommendation": "recommendations"}.get(
        finding.finding_type, "key_findings"
    )


def _artifacts(findings: Iterable[Finding]) -> list[dict[str, str]]:
    """Return the files that findings name in ``data.path``."""
    found: list[dict[str, str]] = []
    for finding in findings:
        data = json_text.parse_trusted(finding.data.encode())
        path = data.get("path") if isinstance(data, dict) else None
        if isinstance(path, str) and len(found) < _MOST:
            found.append({"path": _cut(path), "description": _cut(finding.message)})
    return found


def _some(texts: Iterable[str]) -> tuple[str, ...]:
    """Return the first few texts, each cut: the agents that read a handover pay for each token."""
    return tuple(_cut(text) for _, text in zip(range(_MOST), texts, strict=False))


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _rank(severity: str) -> int:
    """Return 0 for the most severe; any other word comes last."""
    known = _MOST_SEVERE_FIRST
    return known.index(severity) if severity in known else len(known)
