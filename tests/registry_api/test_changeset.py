"""A validated changeset is handed on: stores that wrap another do not validate it twice."""

from dataclasses import replace
from uuid import UUID

import pytest

from contract_tests import build
from registry_api import Limits, validate_changeset
from registry_api.errors import InvalidChangeset


def test_a_validated_changeset_is_not_validated_again():
    first = validate_changeset(build.creating("t"), Limits())
    again = validate_changeset(first.changeset, Limits())
    assert again == first
    assert again.changeset is first.changeset
    assert again.text is first.text


def test_a_changed_copy_is_validated():
    valid = validate_changeset(build.creating("t"), Limits())
    with pytest.raises(InvalidChangeset):
        validate_changeset(replace(valid.changeset, ops=()), Limits())
    other = validate_changeset(replace(valid.changeset, actor="x"), Limits())
    assert other.digest != valid.digest


def test_narrower_limits_hold_for_a_validated_changeset():
    valid = validate_changeset(build.creating("t"), Limits())
    with pytest.raises(InvalidChangeset, match="at most 10000 and 1 "):
        validate_changeset(valid.changeset, Limits(changeset_bytes=1))


def test_a_derived_changeset_is_not_taken_from_a_caller():
    """What was validated as a store's own changeset is refused as a caller's, and vice versa."""
    caller = build.creating("t")
    with pytest.raises(InvalidChangeset, match="UUIDv8"):
        validate_changeset(validate_changeset(caller, Limits()).changeset, Limits(), derived=True)
    own = replace(caller, id=UUID(int=caller.id.int & ~(0xF << 76) | 8 << 76))  # a UUIDv8
    derived = validate_changeset(own, Limits(), derived=True).changeset
    with pytest.raises(InvalidChangeset, match="UUIDv7"):
        validate_changeset(derived, Limits())
