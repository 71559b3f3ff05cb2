"""``registry-backend doctor``."""

from __future__ import annotations

from backends.admin.app import MISMATCH, OK, Json, Workspace, answer, app


@app.command
def doctor(*, workspace: Workspace = None, json: Json = False) -> int:
    """List problems, each with the command that fixes it. Changes nothing.

    Exits 3 if something needs action.

    Example: registry-backend doctor --json
    """
    from backends.admin.doctor import show_doctor
    from registry_api import OpenContext, load_plugins, load_settings
    from registry_api.diagnostics import examine

    context = OpenContext(settings=load_settings(workspace), plugins=load_plugins())
    issues = [found.to_dict() for found in examine(context)]
    code = MISMATCH if any(i["next"] for i in issues) else OK
    return answer({"issues": issues}, show_doctor, as_json=json, code=code)
