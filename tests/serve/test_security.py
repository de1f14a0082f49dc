"""Who may change a market over HTTP, and what nobody may: one server, asked in every wrong way."""

import json
import os
import pwd
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from compute_market import rpc
from compute_market.jobs import jobs
from tb_cli.network.openapi import description
from tb_cli.network.pages.routes import PAGES
from tests.support.cli import Cli, operating
from tests.support.owners import SOMEBODY, as_root
from tests.support.serving import Answer, Serving, serving

pytest_plugins = ("tests.support.cli",)

# Each method that needs the token, with what it would change.
CHANGES: dict[str, dict[str, Any]] = {"compute.job_cancel": {"job_id": "j1"}}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    with (
        pytest.MonkeyPatch.context() as patch,
        operating(tmp_path_factory.mktemp("served"), patch) as cli,
    ):
        cli.active("j1", "j2")
        cli.ok("serve", "token")
        yield cli


@pytest.fixture(scope="module")
def far(home: Cli) -> Iterator[Serving]:
    with serving() as found:
        yield found


@pytest.fixture
def token(home: Cli) -> str:
    return (home.home / "serve.token").read_text().strip()


def state(far: Serving, job_id: str = "j1") -> str:
    return far.view(lambda txn: jobs.get(txn, job_id).state)


def body_of(method: str, **more: Any) -> bytes:
    return json.dumps({"method": method, "params": CHANGES[method]} | more).encode()


def test_every_method_that_changes_the_market_is_tried_here() -> None:
    assert {name for name, each in rpc.METHODS.items() if each.access == "token"} == set(CHANGES)


def unauthorized(token: str) -> dict[str, list[tuple[str, str]]]:
    """Headers that are not enough."""
    right = ("Authorization", f"Bearer {token}")
    return {
        "none": [],
        "an empty one": [("Authorization", "Bearer ")],
        "the scheme alone": [("Authorization", "Bearer")],
        "another": [("Authorization", f"Bearer {'0' * len(token)}")],
        "the beginning": [("Authorization", f"Bearer {token[:-1]}")],
        "more": [("Authorization", f"Bearer {token}0")],
        "capitals": [("Authorization", f"Bearer {token.upper()}")],
        "another scheme": [("Authorization", f"Basic {token}")],
        "no scheme": [("Authorization", token)],
        "twice, the second right": [("Authorization", "Bearer x"), right],
        "twice, the first right": [right, ("Authorization", "Bearer x")],
        "a proxy's": [("Proxy-Authorization", f"Bearer {token}")],
        "a cookie": [("Cookie", f"token={token}; Authorization=Bearer {token}")],
        "another header": [("X-Authorization", f"Bearer {token}")],
        "no ASCII": [("Authorization", f"Bearer {token[:-1]}\xff")],
    }


@pytest.mark.parametrize("method", CHANGES)
def test_nobody_without_the_token_changes_anything(far: Serving, token: str, method: str) -> None:
    before = state(far)
    calls = {
        "a call": body_of(method, id=1, jsonrpc="2.0"),
        "a call that is bare": body_of(method),
        "a notification": body_of(method, jsonrpc="2.0"),
    }
    for how, headers in unauthorized(token).items():
        for what, body in calls.items():
            answer = asked(far, body, headers)
            assert answer.status == 401, (how, what, answer)
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.json["error"]["data"]["reason"] == "unauthorized"
        batch = asked(far, b"[" + b",".join([*calls.values()] * 2) + b"]", headers)
        errors = [each["error"]["data"]["reason"] for each in batch.json]
        assert (batch.status, errors) == (401, ["unauthorized"] * 6), how
        described = {"$ref": "#/components/schemas/Failures"} | json.loads(description())
        assert jsonschema_rs.validator_for(described).is_valid(batch.json)
        notifications = asked(far, b"[" + calls["a notification"] + b"]", headers)
        assert notifications.status == 401, how
    assert state(far) == before == "active"


def test_token_is_asked_for_nowhere_once_the_home_is_elsewhere(cli: Cli) -> None:
    """Who has the right one is not told that it is wrong, and keeps it."""
    cli.active("j1")
    token = cli.ok("serve", "token").strip()
    elsewhere = cli.home.with_name("elsewhere")
    right = [("Authorization", f"Bearer {token}")]
    with serving() as far:
        cli.home.rename(elsewhere)
        for headers in (right, []):
            answer = asked(far, body_of("compute.job_cancel"), headers)
            assert (answer.status, answer.json["error"]["code"]) == (500, rpc.INTERNAL)
        elsewhere.rename(cli.home)
        answer = asked(far, body_of("compute.job_cancel"), right)
    assert (answer.status, answer.json["state"]) == (200, "cancelled")


def asked(far: Serving, body: bytes, headers: list[tuple[str, str]], path: str = "/") -> Answer:
    """A POST whose headers may come twice."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{lines}"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    top, _, content = far.say(head.encode("latin-1") + body).partition(b"\r\n\r\n")
    first, *rest = top.decode().split("\r\n")
    pairs = (line.partition(": ") for line in rest)
    return Answer(int(first.split()[1]), content, {name.lower(): value for name, _, value in pairs})


@pytest.mark.parametrize("method", CHANGES)
def test_what_changes_the_market_is_done_by_no_other_way_of_asking(
    far: Serving, token: str, method: str
) -> None:
    """Not even with the token: a page of somebody else's can have a browser GET anything."""
    query = "&".join(f"{name}={value}" for name, value in CHANGES[method].items())
    right = {"Authorization": f"Bearer {token}"}
    for path in (f"/{method}", f"/{method}?{query}", f"/%63{method[1:]}?{query}"):
        for verb in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
            assert far.ask(verb, path, body_of(method), **right).status == 405, (verb, path)
    override = {"X-HTTP-Method-Override": "POST", "X-HTTP-Method": "POST"}
    for verb in ("GET", "PUT", "OPTIONS"):
        answer = far.ask(verb, f"/?{query}&method={method}", body_of(method), **right, **override)
        # What else is at this path is for eyes.
        assert answer.status in (200, 405)
    for path in (
        f"//{method}",
        f"/{method}/",
        f"/{method}%00",
        f"/{method.upper()}",
        f"/x/../{method}",
    ):
        assert far.ask("POST", path, body_of(method), **right).status == 404, path
    assert state(far) == "active"


def test_page_of_another_site_gets_no_leave(far: Serving) -> None:
    """It may not read what is answered, and what it may send blindly has no token."""
    origin = {"Origin": "https://evil.example"}
    preflight = {"Access-Control-Request-Method": "POST"}
    preflight["Access-Control-Request-Headers"] = "authorization"
    answers = [
        far.ask("OPTIONS", "/", **origin, **preflight),
        far.ask("GET", "/compute_market.stats", **origin),
        far.ask("POST", "/", body_of("compute.job_cancel"), **origin),
    ]
    assert [each.status for each in answers] == [405, 200, 401]
    for each in answers:
        names = set(each.headers)
        assert not [name for name in names if name.startswith("access-control")]
        assert "set-cookie" not in names
        assert each.headers["x-content-type-options"] == "nosniff"


def test_answers_are_no_pages_whatever_was_asked(far: Serving) -> None:
    script = "<script>alert(1)</script>"
    quoted = "%3Cscript%3Ealert(1)%3C/script%3E"
    answers = [
        far.ask("GET", f"/compute.job_status?job_id={quoted}"),
        far.ask("GET", f"/compute.job_status?{quoted}=1"),
        far.ask("GET", f"/{quoted}"),
        far.ask("POST", "/", json.dumps({"method": script}).encode()),
        far.ask("POST", "/", json.dumps({"method": "x", "id": script}).encode()),
        far.ask("POST", "/", json.dumps({script: script}).encode()),
    ]
    for each in answers:
        assert each.headers["content-type"] == "application/json"
        assert each.headers["x-content-type-options"] == "nosniff"


def test_nothing_of_this_machine_is_told(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By no page and no method: not where files lie, who works here, what was typed, nor how
    other markets are reached. That is with the one who has the home."""
    account = pwd.struct_passwd(("ann-login", "x", os.getuid(), 0, "", "", ""))
    monkeypatch.setattr(pwd, "getpwuid", lambda _: account)
    secret = tmp_path / "patient-4711"
    secret.mkdir()
    (secret / "input").write_bytes(b"scan")
    cli.post("--offer-id", "main")
    job = ("--job-id", "j1", "--buyer", "alice", "--workload", "transcode", "--max-price", "9")
    cli.ok("compute", "submit", *job, "--slice", str(secret / "input"))
    for to in (
        f"dir:{secret}/nowhere",
        f"exec:{secret}/nothing",
        "http://127.0.0.1:1/hook-4711?key=hunter3",
    ):
        cli.ok("compute", "courier", "send", str(secret / "input"), "alice", "--to", to)
    assert cli("compute", "courier", "flush", "--max-attempts", "1").code
    private = ("patient-4711", "hook-4711", "hunter3", "ann-login", os.uname().nodename)
    told_here = cli.ok("log", "--json") + cli.ok("compute", "courier", "list", "--json")
    assert all(each in told_here for each in (*private, str(tmp_path)))

    names = {"/jobs/{id}": "j1", "/offers/{id}": "main", "/parties/{id}": "alice"}
    pages = [path.replace("{id}", names.get(path, "")) for path in PAGES]
    paths = [f"/{name}" for name, each in rpc.METHODS.items() if each.reads]
    of_job = [f"/{name}?job_id=j1" for name in rpc.METHODS if name.startswith("compute.job_")]
    others = ["/jobs?list=all", "/healthz", "/readyz", "/metrics", "/openapi.json", "/nothing"]
    cancel = body_of("compute.job_cancel", jsonrpc="2.0", id=1)
    right = {"Authorization": f"Bearer {cli.ok('serve', 'token').strip()}"}
    with serving() as far:
        answers = {path: far.ask("GET", path) for path in (*pages, *paths, *of_job, *others)}
        answers["a change"] = far.ask("POST", "/", cancel, **right)
    assert {answers[path].status for path in (*pages, "a change")} == {200}
    for path, answer in answers.items():
        for each in (*private, str(tmp_path), str(cli.home)):
            assert each not in answer.body.decode(), (path, each)
    for path in ("/courier", "/"):
        for shown in ("dir:…", "exec:…", "http://127.0.0.1:1<", "not delivered"):
            assert shown in answers[path].body.decode(), (path, shown)
    assert "compute submit" in answers["/events"].body.decode()


# The file of the token.


def to_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def to_all(path: Path) -> None:
    path.chmod(0o644)


def to_somebody(path: Path) -> None:
    os.chown(path, SOMEBODY, SOMEBODY)


def to_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def to_nothing(path: Path) -> None:
    path.write_text("")


def to_words(path: Path) -> None:
    path.write_text("let me in, whoever I am, please, now\n")


UNFIT = [
    *(to_link, to_all, to_directory, to_nothing, to_words),
    pytest.param(to_somebody, marks=as_root),
]


@pytest.mark.parametrize("spoil", UNFIT)
def test_token_of_a_file_that_others_may_have_made_is_not_taken(cli: Cli, spoil: Any) -> None:
    cli.active("j1")
    token = cli.ok("serve", "token").strip()
    right = [("Authorization", f"Bearer {token}")]
    with serving() as far:
        spoil(cli.home / "serve.token")
        for headers in (right, [("Authorization", "Bearer ")], []):
            answer = asked(far, body_of("compute.job_cancel"), headers)
            assert answer.status in (401, 500)
            assert str(cli.home) not in answer.body.decode()
        assert state(far) == "active"
        # Who reads needs none.
        assert far.ask("GET", "/compute.job_status?job_id=j1").status == 200
    done = cli("serve", "--port", "0")
    assert (done.code, done.out) == (2, ""), done
    assert "serve.token" in done.err


def test_token_is_private_and_another_after_it_was_rotated(cli: Cli) -> None:
    cli.active("j1")
    first = cli.ok("serve", "token").strip()
    assert (cli.home / "serve.token").stat().st_mode & 0o777 == 0o600
    with serving() as far:
        second = cli.ok("serve", "token", "--rotate").strip()
        assert first != second
        statuses = [
            asked(far, body_of("compute.job_cancel"), [("Authorization", f"Bearer {each}")]).status
            for each in (first, second)
        ]
    assert statuses == [401, 200]
