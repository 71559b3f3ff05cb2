"""Which phase the parts of a document name, by index or by id."""

from __future__ import annotations

from backends.json_files.legacy.lens.element import (
    Json,
    is_default,
    ours_of,
)
from registry_api.records import (
    SAFE_INT,
)

__all__ = ["bound_phase", "current_phase", "objects_in", "phase_index_of"]


def current_phase(document: Json, by_id: dict[str, int]) -> int | None:
    """Return the current phase of a document; ``by_id``: the phases' indexes by their ids."""
    if is_default(document, "current_phase_index") and not document.get("phases"):
        return None
    if "current_phase_index" in document:
        value = document["current_phase_index"]
        return value if type(value) is int and abs(value) <= SAFE_INT else None
    return by_id.get(str(document.get("current_phase_id")))


def phase_index_of(place: int, element: Json) -> int:
    """Return the index of a phase at a place in the list."""
    value = ours_of(element).get("phase_index")
    return value if type(value) is int and abs(value) <= SAFE_INT else place


def bound_phase(element: Json, by_id: dict[str, int]) -> int | None:
    """Return the phase that an element names, by index or else by id."""
    if "phase_index" in element:
        value = element["phase_index"]
        return value if type(value) is int and abs(value) <= SAFE_INT else None
    return by_id.get(str(element.get("phase_id")))


def objects_in(value: object) -> list[Json]:
    """Return the objects in a value that should be a list of them."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
