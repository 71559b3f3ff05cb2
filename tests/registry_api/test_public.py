"""The public names and the error tree."""

import registry_api
from registry_api import errors


def test_public_names_exist_and_are_sorted():
    """Every name in `__all__` exists, so that a removal or a typing error is noticed."""
    assert all(hasattr(registry_api, name) for name in registry_api.__all__)
    assert all(hasattr(errors, name) for name in errors.__all__)


def test_every_error_is_in_the_drawn_tree_with_a_code_of_its_own():
    """The tree at the top of errors.py has every error; the codes are unique."""
    classes = [getattr(errors, name) for name in errors.__all__]
    assert all(f" {c.__name__}" in errors.__doc__ or c is errors.RegistryError for c in classes)
    codes = [c.code for c in classes]
    assert len(set(codes)) == len(codes)


def test_messages_say_what_to_do_next():
    """The text of an error ends with the next step."""
    error = errors.Conflict("t", expected=1, actual=2)
    assert str(error).startswith("task t is at revision 2, not at 1. Load the task again")
    assert error.retryable
