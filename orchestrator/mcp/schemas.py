"""The JSON schemas of tools, kept short: a client pays for each token of the list of tools.

A constraint that the schema leaves out is still checked when a tool is called.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from orchestrator.settings import OrchestratorSettings

__all__ = ["input_schema", "output_schema"]

_LONG = 1000  # a larger limit is left out of the schema: nobody reaches it by accident
_SETTING = re.compile(r"\{(default_kind|max_agents|max_concurrent|max_depth)\}")
_SAYS_NOTHING: tuple[Any, ...] = (None, "", [], {})


def input_schema(schema: Mapping[str, Any], options: OrchestratorSettings) -> dict[str, Any]:
    """Return the schema of a tool's arguments without titles, references and empty defaults.

    A setting that a description names in braces is replaced by its value, and ``kind`` lists the
    configured kinds of agents.
    """
    defs = schema.get("$defs", {})
    properties = {name: _short(value, defs) for name, value in schema.get("properties", {}).items()}
    for name, value in properties.items():
        if "description" in value:
            value["description"] = _SETTING.sub(
                lambda found: str(getattr(options, found[1])), value["description"]
            )
        if name == "kind":
            value["enum"] = sorted(options.all_kinds)
    return {
        "type": "object",
        "properties": properties,
        **({"required": schema["required"]} if schema.get("required") else {}),
    }


def output_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of an answer: its fields by type, one level deep.

    Answers leave out fields at their default, so only a field without a default can be null.
    """
    required = schema.get("required", [])
    properties = {}
    for name, value in schema.get("properties", {}).items():
        short = _short(value, {})
        kind = short.get("type", "object")
        if name in required and _nullable(value):
            kind = [kind, "null"]
        properties[name] = {"type": kind}
    return {"type": "object", "properties": properties}


def _short(value: Mapping[str, Any], defs: Mapping[str, Any]) -> dict[str, Any]:
    """Shorten one value's schema: drop the null alternative, inline references."""
    if _nullable(value):
        (other,) = (part for part in value["anyOf"] if part.get("type") != "null")
        value = {**{k: v for k, v in value.items() if k != "anyOf"}, **other}
    if "$ref" in value:
        target = defs.get(value["$ref"].rpartition("/")[2], {})
        own = {k: v for k, v in value.items() if k != "$ref"}
        value = {**{k: v for k, v in target.items() if k != "description"}, **own}
    short: dict[str, Any] = {}
    for key, said in value.items():
        idle = key == "default" and said in _SAYS_NOTHING
        long = key in {"maxLength", "maxItems"} and said >= _LONG
        if key in {"title", "minLength", "additionalProperties"} or idle or long:
            continue
        if key == "properties":
            short[key] = {name: _short(part, defs) for name, part in said.items()}
        elif key == "items":
            short[key] = _short(said, defs)
        elif key == "anyOf":
            short[key] = [_short(part, defs) for part in said]
        else:
            short[key] = said
    return short


def _nullable(value: Mapping[str, Any]) -> bool:
    parts = value.get("anyOf", [])
    return len(parts) == 2 and any(part.get("type") == "null" for part in parts)
