"""``health``: the health daemon in the foreground, or one scan."""

from __future__ import annotations

import dataclasses
import signal
import sys
from contextlib import ExitStack
from types import FrameType
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from orchestrator.cli.app import Workspace, app, configure_log_from, need, opened, print_json
from registry_api import RegistryStore, Settings, load_settings
from registry_api.errors import UsageError
from registry_api.workspace.server_cli import OK

if TYPE_CHECKING:
    from orchestrator.health.scan import Scan
    from orchestrator.observer import Observer

__all__ = ["health"]


@app.command
def health(
    *,
    workspace: Workspace = None,
    once: Annotated[bool, Parameter(negative="", help="scan once and say what was found")] = False,
    interval: Annotated[
        float | None, Parameter(help="seconds between two scans; default: the setting")
    ] = None,
    json: Annotated[bool, Parameter(negative="", help="one JSON object a scan")] = False,
    metrics: Annotated[
        str | None, Parameter(help="HOST:PORT on loopback for /metrics, with the token")
    ] = None,
) -> int:
    """Compare agents with their processes and correct the records, until this is interrupted.

    Of all daemons of a host only one scans at a time; every server that a person starts runs one
    too. With --once the exit code is 0, also if something was corrected.

    Example: registry-orchestrator health --once
    """
    if interval is not None and not 0.1 <= interval <= 3600:
        raise UsageError("--interval takes 0.1 to 3600 seconds", next_step="E.g. --interval 30")
    need("psutil", "structlog")
    configure_log_from(load_settings(workspace))

    def tell(scan: Scan) -> None:
        if json:
            print_json(dataclasses.asdict(scan))
        elif once or scan.corrections or scan.late_writes:
            print(_said(scan))
        sys.stdout.flush()

    with (
        opened(workspace, observer_of=_metrics_of if metrics else None) as service,
        ExitStack() as up,
    ):
        from orchestrator.health.daemon import HealthDaemon
        from orchestrator.health.scan import HealthScan

        if once:
            tell(HealthScan(service).run())
            return OK
        if metrics:
            from orchestrator.health.metrics_server import metrics_served
            from orchestrator.metrics import Metrics

            assert isinstance(service.observer, Metrics)  # see _metrics_of
            place = service.settings.workspace
            url = up.enter_context(metrics_served(service.observer, place, metrics))
            sys.stderr.write(f"metrics: {url}\n")
        daemon = HealthDaemon(service, interval=interval, told=tell)

        def end(_number: int, _frame: FrameType | None) -> None:
            daemon.stop()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, end)
        sys.stderr.write(f"scanning every {daemon.interval:g} s; Ctrl-C ends this\n")
        daemon.run()
    return OK


def _metrics_of(store: RegistryStore, settings: Settings) -> Observer:
    need("prometheus_client")
    from orchestrator.metrics import Metrics

    return Metrics(store, settings)


def _said(scan: Scan) -> str:
    """Return a scan in sentences."""
    from orchestrator.cli.text import plain

    lines = [f"{scan.looked_at} active agent(s) checked"]
    for what, agents in (
        ("ended, as their processes have", scan.ended),
        ("stopped, as they ran for too long", scan.overdue),
        ("processes stopped, as their agents have ended", scan.stopped),
        ("reviewers started", scan.started),
        ("late writes of other programs, see registry-backend doctor", scan.late_writes),
    ):
        if agents:
            lines.append(f"{what}: {', '.join(map(plain, agents))}")
    return "\n".join(lines)
