"""The arguments of the tools: their bounds, their descriptions, and what is refused."""

from __future__ import annotations

import json
from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema

from orchestrator.rules.agents import TYPE_PATTERN
from orchestrator.rules.findings import Severity
from orchestrator.rules.progress import SAYABLE
from orchestrator.rules.tasks import PhasePlan
from registry_api.errors import InvalidInput
from registry_api.records import is_text, json_text

__all__ = [
    "LARGEST",
    "LONGEST",
    "AgentId",
    "AgentType",
    "AnyTask",
    "Cursor",
    "Effort",
    "FindingArgument",
    "Kind",
    "Limit",
    "Model",
    "OwnId",
    "Phase",
    "PhaseArgument",
    "Prompt",
    "Reason",
    "ReportedStatus",
    "ReviewId",
    "Said",
    "Short",
    "TaskId",
    "Text",
    "Texts",
    "json_of",
    "moment_of",
]

LONGEST = 2**20  # characters of a string
# Bytes of a message: the longest string in its longest JSON form, and the rest of the message.
LARGEST = 12 * LONGEST + 2**20


def _storable(text: str) -> str:
    if not is_text(text):
        raise ValueError("contains U+0000 or a lone surrogate")
    return text


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty")
    return text


ID = r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$"
ReportedStatus = StrEnum("ReportedStatus", {word.name: word.value for word in sorted(SAYABLE)})  # type: ignore[misc]  # (mypy wants literals)


def _shown(description: str) -> WithJsonSchema:
    """Show an id in the schema without its pattern; the pattern is still checked."""
    return WithJsonSchema({"type": "string", "description": description})


TaskId = Annotated[str, Field(pattern=ID), _shown("the task's id")]
AgentId = Annotated[str, Field(pattern=ID), _shown("the agent's id")]
OwnId = Annotated[str, Field(pattern=ID), _shown("your own id")]
ReviewId = Annotated[str, Field(pattern=ID), _shown("the review's id")]
AnyTask = Annotated[str, Field(max_length=128, description="default: all tasks")]
Text = Annotated[str, Field(max_length=LONGEST), AfterValidator(_storable)]
Said = Annotated[Text, Field(min_length=1), AfterValidator(_not_blank)]
Short = Annotated[str, Field(max_length=10_000), AfterValidator(_storable)]
Reason = Annotated[
    Short, Field(min_length=1, description="why (recorded)"), AfterValidator(_not_blank)
]
Texts = Annotated[list[Short], Field(max_length=100)]
Phase = Annotated[int | None, Field(ge=0, le=1000, description="default: the current phase")]
Limit = Annotated[int, Field(ge=1, le=100, description="how many at most")]
Cursor = Annotated[str, Field(max_length=10_000, description="next_cursor of the previous page")]
Kind = Annotated[Short, Field(description="the kind of program; default: {default_kind}")]
Model = Annotated[Short, Field(description="model name, as the program expects it")]
Effort = Annotated[Short, Field(description="effort level, as the program expects it")]
AgentType = Annotated[
    str, Field(pattern=TYPE_PATTERN, description="a name for its role, e.g. builder")
]
Prompt = Annotated[Said, Field(description="what to do, where, and how to check that it is done")]


class PhaseArgument(BaseModel):
    """A phase of a new task."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[
        str,
        Field(min_length=1, max_length=200, description="a short name"),
        AfterValidator(_storable),
        AfterValidator(_not_blank),
    ]
    description: Annotated[Short, Field(description="what to do")] = ""
    deliverables: Annotated[Texts, Field(description="what must exist at its end")] = []
    success_criteria: Annotated[Texts, Field(description="what its reviewers check")] = []

    def plan(self) -> PhasePlan:
        """Return the phase as the rules expect it."""
        return PhasePlan(
            name=self.name,
            description=self.description,
            deliverables=tuple(self.deliverables),
            success_criteria=tuple(self.success_criteria),
        )


class FindingArgument(BaseModel):
    """A defect that a reviewer found."""

    model_config = ConfigDict(extra="allow")

    severity: Annotated[Severity | None, Field(description="how severe it is")] = None
    message: Annotated[Short, Field(description="what is wrong, and how to reproduce it")] = ""


def json_of(value: object, name: str) -> str:
    """Return a caller's value as JSON text; raises InvalidInput if it is not plain JSON."""
    try:
        return json_text.dump_text(json_text.parse(json.dumps(value).encode()))
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidInput(f"{name}: {error}", next_step="Pass plain JSON") from None


def moment_of(text: str) -> datetime:
    """Return the moment that a caller named; raises InvalidInput without a time zone."""
    try:
        moment = datetime.fromisoformat(text)
        if moment.utcoffset() is None:
            raise ValueError("it has no time zone")
    except ValueError as error:
        raise InvalidInput(
            f"since {text[:80]!r}: {error}", next_step="E.g. 2026-01-31T12:00:00+00:00"
        ) from None
    return moment
