"""The health daemon finds late writes: by other programs, after the cut-over of a move."""

import logging
from contextlib import closing
from dataclasses import replace

import pytest

from orchestrator.cli.main import main
from orchestrator.health.daemon import HealthDaemon, scan_at_start
from orchestrator.health.scan import HealthScan
from orchestrator.metrics import Metrics
from orchestrator.opening import open_orchestrator
from registry_api import load_settings
from registry_api.errors import Busy
from registry_api.migration import MigrationPhase, PhaseFile
from registry_api.opening import open_migration
from tests import legacy

TASK = "TASK-1"


def switched(workspace, phase):
    with closing(open_migration(load_settings(workspace, env={}))) as migration:
        migration.switch(MigrationPhase(phase), actor="operator")


def write_late(workspace, said):
    """Write to the frozen document, as a legacy program does that had it open."""
    path = workspace / TASK / "AGENT_REGISTRY.json"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b"look-alike", said))


@pytest.fixture
def service(tmp_path):
    """The orchestrator of a legacy registry with one task, in phase 2."""
    legacy.write_task(tmp_path, TASK)
    switched(tmp_path, 2)
    with open_orchestrator(
        load_settings(tmp_path, env={}), observer_of=lambda s: Metrics(s, load_settings(tmp_path))
    ) as service:
        yield service


def numbers(service):
    lines = service.observer.text().decode().splitlines()
    return [line for line in lines if line.startswith("registry_orchestrator_late_writes ")]


def test_a_late_write_is_told_once_and_counted(service, tmp_path, caplog):
    """Before the cut-over there is none; then each is kept, told and logged once, and counted until
    somebody has dealt with it. The daemon looks once a minute."""
    now, told = [0.0], []
    daemon = HealthDaemon(service, clock=lambda: now[0], told=told.append)
    assert daemon.turn().late_writes == ()
    switched(tmp_path, 3)
    write_late(tmp_path, b"late")
    assert daemon.turn().late_writes is None
    now[0] += 61
    with caplog.at_level(logging.WARNING):
        (path,) = daemon.turn().late_writes
    assert path in caplog.text
    assert told[-1].late_writes == (path,)
    assert numbers(service) == ["registry_orchestrator_late_writes 1.0"]
    now[0] += 61
    assert daemon.turn().late_writes == (path,)
    assert told[-1].late_writes == ()
    write_late(tmp_path, b"later")
    now[0] += 61
    assert len(daemon.turn().late_writes) == 2
    assert len(told[-1].late_writes) == 1
    for report in (tmp_path / ".registry" / "conflicts").glob("*.report"):
        report.unlink()
    now[0] += 61
    assert daemon.turn().late_writes == ()
    assert numbers(service) == ["registry_orchestrator_late_writes 0.0"]


def test_one_scan_names_late_writes(service, tmp_path, capsys):
    """``health --once`` names them and the command to run; a scan of one task does not look."""
    switched(tmp_path, 3)
    write_late(tmp_path, b"late")
    assert main(["health", "--once", "--workspace", str(tmp_path)]) == 0
    assert "late writes of other programs, see registry-backend doctor: " in capsys.readouterr().out
    assert HealthScan(service).run(TASK).late_writes is None


def test_a_scan_goes_on_beside_a_switch(service, monkeypatch):
    """While a switch is under way the scan does not wait for it: it looks the next time."""

    def busy(_settings):
        raise Busy("a switch is under way", next_step="Wait")

    monkeypatch.setattr("orchestrator.health.scan.late_writes", busy)
    found = HealthScan(service).run()
    assert (found.looked_at, found.late_writes) == (0, None)


def test_nothing_is_asked_where_no_other_program_writes(service, tmp_path, monkeypatch, caplog):
    """A start of a server does not look, nor does a scan of a move whose source no other program
    edits: neither opens the stores of the move again."""
    switched(tmp_path, 3)
    monkeypatch.setattr("orchestrator.health.late_writes.open_migration", None)
    scan_at_start(service)
    assert "failed" not in caplog.text
    control = PhaseFile(tmp_path / ".registry")
    record = control.read()
    control.advance(record.epoch, replace(record, epoch=record.epoch + 1, foreign_writers=False))
    assert HealthScan(service).run().late_writes == ()
