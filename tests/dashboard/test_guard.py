"""No access without a token or from another site, and reading changes nothing."""

import http.client
import json
import stat
from itertools import product
from urllib.parse import urlsplit

import httpx2
import pytest

from dashboard.app import create_app
from dashboard.auth import Tokens
from dashboard.cli import main
from registry_api import load_settings, open_store
from tests import legacy
from tests.dashboard.serving import serving

PLACES = {"task_id": "TASK-1", "agent_id": "a", "phase_index": 0}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    workspace = tmp_path_factory.mktemp("guarded")
    agents = [{"id": "a", "type": "builder", "status": "running"}]
    legacy.write_task(workspace, "TASK-1", agents=agents)
    with serving(workspace) as found:
        found.workspace = workspace
        found.settings = load_settings(workspace, env={})
        found.cookie = Tokens(operator=found.operator, reader=found.reader).cookie
        yield found


def routes(served):
    """Return path and methods of every route in the application's table."""
    app = create_app(None, served.settings, tokens=Tokens(operator="o", reader="r"))._app
    flat = []
    for entry in app.routes:
        included = getattr(entry, "original_router", None)
        flat += included.routes if included else [entry]
    found = {r.path.format(**PLACES): r.methods for r in flat if getattr(r, "methods", None)}
    return {**found, "/static/live.js": {"GET"}}


def looking(served):
    """Return the routes that answer GET, except the stream, which does not end."""
    return [p for p, how in routes(served).items() if "GET" in how and p != "/api/events"]


def test_every_route_refuses_without_a_token(served):
    """All except /livez, which only says `ok`; also with a wrong token or a token as a cookie."""
    found = routes(served)
    assert len(found) > 25
    said = (
        {},
        {"authorization": "Bearer x"},
        {"authorization": served.operator},
        {"cookie": f"{served.cookie}={served.operator}"},
    )
    methods = ("GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD")
    with httpx2.Client(base_url=served.url, timeout=30) as client:  # a client for each took 40 s
        for path, headers, method in product((*found, "/nowhere", "/docs"), said, methods):
            answer = client.request(method, path, headers=headers)
            assert answer.status_code == 401, (method, path, headers)
            assert "TASK-1" not in answer.text
    assert httpx2.get(served.url + "/livez").text == "ok"
    assert "/livez" not in found


def test_every_route_answers_with_one(served):
    """Every route answers a valid token, for both roles."""
    for path in looking(served):
        for token in (served.operator, served.reader):
            answer = served.get(path, token=token)
            assert answer.status_code in {200, 404}, (path, answer.text)
            assert answer.headers["content-security-policy"].startswith("default-src 'none'")
            assert "unsafe" not in answer.headers["content-security-policy"]


OURS = ["{}", "localhost:1", "[::1]", "127.0.0.1"]
HOSTS = [*OURS, "evil.example", "127.0.0.1.evil.example", "", "0"]
ORIGINS = [None, "http://{}", "http://evil.example", "null", "https://{}"]


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("origin", ORIGINS)
def test_hosts_and_origins(served, host, origin):
    """Forty combinations: only this server's names, and no other site, are accepted."""
    netloc = urlsplit(served.url).netloc
    host = host.format(netloc)
    headers = {"host": host, "authorization": f"Bearer {served.operator}"}
    if origin is not None:
        headers["origin"] = origin.format(netloc)
    connection = http.client.HTTPConnection(netloc, timeout=30)
    connection.request("GET", "/api/tasks", headers=headers)
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    ours = host in {netloc, "localhost:1", "[::1]", "127.0.0.1"}
    same = origin is None or headers["origin"] == f"http://{host}"
    expected = 200 if ours and same else 421 if not ours else 403
    assert answer.status == expected, body


def test_a_link_is_exchanged_for_a_cookie(served):
    """The URL keeps no token; a cookie is not valid as a token, nor a token as a cookie."""
    for token, role in ((served.operator, "operator"), (served.reader, "reader")):
        answer = httpx2.get(f"{served.url}/?text=x&token={token}", follow_redirects=False)
        assert (answer.status_code, answer.headers["location"]) == (303, "/?text=x"), role
        said = answer.headers["set-cookie"].lower()
        assert all(w in said for w in ("httponly", "samesite=strict", "path=/"))
        assert token not in said
        cookie = answer.cookies[served.cookie]
        assert httpx2.get(served.url, cookies={served.cookie: cookie}).status_code == 200
        assert served.get("/", token=cookie).status_code == 401
    assert httpx2.get(f"{served.url}/?token=wrong").status_code == 401
    away = httpx2.get(
        f"{served.url}//evil.example/?token={served.operator}", follow_redirects=False
    )
    assert away.headers["location"] == "/evil.example/"


def test_a_reader_only_looks(served):
    """A reader's POST is refused; an operator must send JSON of a bounded size."""
    for token, body, kind, status in (
        (served.reader, "{}", "application/json", 403),
        (served.operator, "a=1", "application/x-www-form-urlencoded", 415),
        (served.operator, "{}", "text/plain", 415),
        (served.operator, json.dumps("x" * 2**20), "application/json", 413),
    ):
        headers = {"authorization": f"Bearer {token}", "content-type": kind}
        answer = httpx2.post(served.url + "/api/tasks", headers=headers, content=body)
        assert answer.status_code == status


UP = ["..", "%2e%2e", "..%2f..%2f", "%2e%2e%2f", "....//", "..%5c", "%00", "/"]
WANTED = [
    *("etc/passwd", ".registry/token", "TASK-1/AGENT_REGISTRY.json", "pyproject.toml", "x"),
]
FORMS = [
    *("/static/{}/{}", "/api/tasks/{}/{}", "/api/agents/{}/{}/logs"),
    *("/api/agents/TASK-1/{}{}/output", "/tasks/{}{}"),
]


@pytest.mark.parametrize("up", UP)
def test_no_path_leads_out(served, up):
    """Two hundred spellings of a path traversal, in every part of a path: none reads a file."""
    assert len(UP) * len(WANTED) * len(FORMS) == 200
    for wanted in WANTED:
        for form in FORMS:
            answer = served.get(form.format(up, wanted))
            assert answer.status_code in {404, 405, 422}, (form, up, answer.text[:200])
            assert served.operator not in answer.text
            assert "root:" not in answer.text


def test_looking_changes_nothing(served):
    """Reading every route changes no byte of the registry."""
    with_store = open_store(load_settings(served.workspace, env={}))
    before = with_store.head("TASK-1"), with_store.counts()
    document = served.workspace / "TASK-1" / "AGENT_REGISTRY.json"
    bytes_before = document.read_bytes(), document.stat().st_mtime_ns
    for path in looking(served):
        served.get(path)
    assert (with_store.head("TASK-1"), with_store.counts()) == before
    assert (document.read_bytes(), document.stat().st_mtime_ns) == bytes_before
    with_store.close()


def test_tokens_are_for_their_owner_alone(served, capsys):
    """Both token files have mode 0600; `link` prints the tokens again."""
    for name, token in (("token", served.operator), ("token.read", served.reader)):
        path = served.workspace / ".registry" / name
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        more = ["--reader"] if token == served.reader else []
        assert main(["link", "--workspace", str(served.workspace), *more]) == 0
        assert capsys.readouterr().out == f"{served.url}/?token={token}\n"


def test_an_open_address_must_be_asked_for(tmp_path, capsys):
    """An address beyond loopback is refused without --remote."""
    for host in ("0.0.0.0", "::", "example.org"):
        assert main(["serve", "--host", host, "--workspace", str(tmp_path)]) == 2
        assert "can be reached by others" in capsys.readouterr().err
