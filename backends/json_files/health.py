"""What ``doctor`` asks of the older programs' files and of what we keep beside them."""

from __future__ import annotations

from collections.abc import Iterator

from backends.json_files.claims import listed_tasks
from backends.json_files.intent import pending_numbers
from backends.json_files.layout import Layout
from backends.json_files.view import JsonView
from backends.jsonl.times import Times
from registry_api.health import Issue
from registry_api.opening import OpenContext, has_legacy_registry

__all__ = ["check_files"]


def check_files(context: OpenContext) -> Iterator[Issue]:
    """Files that could not be read, writes of the dead, bytes that were kept aside."""
    layout = Layout(context.workspace)
    yield from _kept(layout)
    if not has_legacy_registry(context.workspace):
        return
    times = Times.named(context.settings.legacy_tz)
    for problem in JsonView(context.workspace, times=times).problems():
        yield Issue(what=problem)
    unknown = sorted(listed_tasks(layout.global_file) - set(layout.tasks()))
    if unknown:
        some = ", ".join(unknown[:3]) + (" …" if len(unknown) > 3 else "")
        yield Issue(
            what=f"{layout.global_file} lists {len(unknown)} task(s) without a registry, not "
            f"counted: {some}"
        )
    if (layout.state / "intents").is_dir():
        for name in sorted(pending_numbers(layout.state / "intents")):
            yield Issue(
                what=f"a write to task {name} is under way, or its writer was killed",
                next_step="registry-backend recover",
            )


def _kept(layout: Layout) -> Iterator[Issue]:
    """Also where no document is left: in phase 4 what others wrote too late lies here."""
    for folder in ("conflicts", "quarantine"):
        kept = sorted((layout.state / folder).glob("*"))
        if kept:
            yield Issue(
                what=f"{len(kept)} file(s) with bytes of other programs that were not taken over",
                next_step=f"Look at {layout.state / folder}, then remove what is settled",
            )
