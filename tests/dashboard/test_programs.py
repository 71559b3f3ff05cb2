"""The commands: one serves orchestrator and dashboard, one prints the link again."""

import signal
import subprocess
import sys
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest

from dashboard.cli import main
from tests.dashboard.serving import serving
from tests.orchestrator.conducting import environment
from tests.orchestrator.test_launching import until


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("transport", [("--http", "127.0.0.1:0"), ()])
def test_the_orchestrator_serves_both(tmp_path, transport, ending):
    """The link is on standard error; the dashboard ends when the orchestrator ends or is killed."""
    command = [sys.executable, "-m", "orchestrator", "serve", "--dashboard", *transport]
    process = subprocess.Popen(
        [*command, "--dashboard-port", "0"],
        env=environment(tmp_path),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    link = urlsplit(process.stderr.readline().strip())
    url = f"http://{link.netloc}"
    bearer = {"authorization": f"Bearer {parse_qs(link.query)['token'][0]}"}
    assert httpx2.get(url + "/api/tasks", headers=bearer).json() == []
    process.send_signal(ending)
    process.communicate(timeout=30)

    def gone():
        try:
            httpx2.get(url + "/livez")
        except httpx2.ConnectError:
            return True
        return False

    until(gone)


def test_the_link_is_printed_again(tmp_path, capsys):
    """For the running dashboard, or for the port that is given."""
    with serving(tmp_path) as served:
        assert main(["link", "--workspace", str(tmp_path)]) == 0
        assert capsys.readouterr().out == f"{served.url}/?token={served.operator}\n"
        assert main(["link", "--workspace", str(tmp_path), "--port", "99"]) == 0
        assert capsys.readouterr().out == f"http://127.0.0.1:99/?token={served.operator}\n"
