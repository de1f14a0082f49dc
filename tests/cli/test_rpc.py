"""What a server answers programs: every method by every way, and nobody changes it unasked.

One `tb-cli serve` in a process of its own answers most of this module.
"""

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema_rs
import lmdb
import msgspec
import pytest

from compute_market import rpc
from compute_market.store.schema import EVENTS
from tb_cli.network.openapi import description
from tb_cli.network.rpc_endpoint import BATCH_MAX
from tests.support.cli import HELLO, Cli, operating, without
from tests.support.serving import Far, Process, serving

pytest_plugins = ("tests.support.cli",)

# What the command line prints under --json, by method.
PRINTED = {
    "compute_market.stats": ("compute-market", "stats"),
    "compute_market.scheduler_stats": ("compute", "stats"),
    "compute_market.price_board": ("compute-market", "prices"),
    "compute.job_requirements": ("compute", "requirements", "j1"),
    "compute.job_status": ("compute", "status", "j1"),
    "settlement_status": ("compute-market", "settle", "status"),
}
JOB = {"job_id": "j1"}
PARAMETERS: dict[str, dict[str, str]] = {
    "compute.job_requirements": JOB,
    "compute.job_status": JOB,
}
READS = [method for method in rpc.METHODS.values() if method.reads]


class Served(NamedTuple):
    """A server, and what the command line said of its market just before."""

    cli: Cli
    far: Far
    printed: dict[str, Any]
    token: str
    pid: int

    def post(self, call: Any, token: str | None = None) -> Any:
        """What is answered to a call, or to text that is none."""
        text = call if isinstance(call, bytes) else json.dumps(call).encode()
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return self.far.ask("POST", "/", text, **headers)

    def job(self, job_id: str) -> Any:
        return self.far.ask("GET", f"/compute.job_status?job_id={job_id}").json


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    directory = tmp_path_factory.mktemp("rpc")
    with pytest.MonkeyPatch.context() as patch, operating(directory, patch) as cli:
        cli.real()
        cli.post("--gpu", "A100", "--gpu-memory-mb", "9000")
        for job_id in ("j1", "done", *(f"c{number}" for number in range(6))):
            cli.submit(job_id, "--gpu", "A100")
        cli.ok("compute", "prove", "done", "0", HELLO)
        printed = {name: json.loads(cli.ok(*words, "--json")) for name, words in PRINTED.items()}
        token = cli.ok("serve", "token").strip()
        process = Process(cli)
        yield Served(cli, process.far, printed, token, process.process.pid)
        process.process.terminate()
        _, err = process.process.communicate(timeout=20)
        assert (process.process.returncode, b"Traceback" in err) == (0, False)


# The lines of the document that it all began with, and the keys that it shows.
LINES = {
    "curl localhost:26658/compute_market.stats": [
        *("industrial_backlog", "industrial_utilization"),
        *("industrial_units_total", "industrial_price_per_unit"),
    ],
    """curl -s -d '{"method":"compute_market.scheduler_stats"}' http://localhost:3030 | jq""": [
        *("success", "capability_mismatch", "reputation_failure", "active_jobs", "utilization"),
    ],
}


@pytest.mark.parametrize(("line", "keys"), LINES.items(), ids=["stats", "scheduler_stats"])
def test_curl_prints_what_is_shown(
    line: str, keys: list[str], served: Served, tmp_path: Path
) -> None:
    """As printed; what is at the two ports elsewhere is kept out by the configuration of curl."""
    missing = without("curl", "jq")
    if missing is not None:
        pytest.skip(missing)
    ways = (
        f'connect-to = "localhost:{port}:127.0.0.1:{served.far.port}"' for port in (26658, 3030)
    )
    (tmp_path / ".curlrc").write_text("\n".join(ways))
    environment = os.environ | {"CURL_HOME": str(tmp_path)}
    done = subprocess.run(["bash", "-c", line], capture_output=True, env=environment, check=True)
    found = json.loads(done.stdout)
    assert list(found)[: len(keys)] == keys
    # As it is shown: a key on a line.
    assert done.stdout.decode() == json.dumps(found, indent=2) + "\n"


def query(parameters: dict[str, str]) -> str:
    pairs = "&".join(f"{name}={value}" for name, value in parameters.items())
    return f"?{pairs}" if pairs else ""


@pytest.mark.parametrize("method", READS, ids=lambda method: method.name)
def test_method_that_reads_answers_what_the_command_line_prints(
    method: rpc.Method, served: Served
) -> None:
    parameters = PARAMETERS.get(method.name, {})
    by_path = served.far.ask("GET", f"/{method.name}{query(parameters)}")
    assert by_path.status == 200, by_path
    call = {"method": method.name, "params": parameters}
    assert served.post(call).json == by_path.json
    assert served.post(call | {"jsonrpc": "2.0", "id": "x"}).json == {
        "jsonrpc": "2.0",
        "id": "x",
        "result": by_path.json,
    }
    expected = served.printed[method.name]
    now = by_path.json
    for volatile in ("industrial_utilization", "height"):  # Time goes on.
        expected, now = ({**each, volatile: 0} for each in (expected, now))
    assert {name: now[name] for name in expected} == expected
    assert set(now) - set(expected) <= {"balances", "industrial_utilization", "height"}
    described(method.result, by_path.json)


def described(kind: Any, document: dict[str, Any]) -> None:
    """A document is what its type says, no field more or less."""
    msgspec.convert(document, kind, strict=True)
    assert set(document) <= set(kind.__annotations__) | set(kind.__optional_keys__) | set(
        kind.__required_keys__
    )
    document_schema = json.loads(description())
    schema = {
        "$ref": f"#/components/schemas/{kind.__name__}",
        "components": document_schema["components"],
    }
    assert jsonschema_rs.validator_for(schema).is_valid(document)


def test_every_method_is_tried() -> None:
    assert set(PRINTED) == {method.name for method in READS}
    elsewhere = {"compute.job_cancel", "net.reputation_gossip", "courier.deliver"}
    assert set(rpc.METHODS) - set(PRINTED) == elsewhere


def test_parameters_that_may_be_left_out_are_taken(served: Served) -> None:
    wallet = served.far.ask("GET", "/settlement_status?owner=alice").json["wallet"]
    assert (wallet["owner"], wallet["ct"] >= 0) == ("alice", True)
    lane = served.far.ask("GET", "/compute_market.price_board?lane=industrial").json
    assert list(lane) == ["industrial"]
    assert served.far.ask("GET", "/compute.job_requirements?job_id=nobody").json == {}


NO_PARAMETERS = {
    "an unknown one": "/compute_market.stats?x=1",
    "one that is missing": "/compute.job_status",
    "one that comes twice": "/compute.job_status?job_id=j1&job_id=j1",
    "one that is empty": "/compute.job_status?job_id=",
    "no id": "/compute.job_status?job_id=..%2fx",
    "an id with a line break": "/compute.job_status?job_id=j1%0a",
    "no lane": "/compute_market.price_board?lane=fast",
    "a null byte": "/settlement_status?owner=%00",
    "no UTF-8": "/settlement_status?owner=%ff",
}


@pytest.mark.parametrize("target", NO_PARAMETERS.values(), ids=NO_PARAMETERS)
def test_parameters_that_are_none_are_told(target: str, served: Served) -> None:
    answer = served.far.ask("GET", target)
    assert (answer.status, answer.json["error"]) == (400, "usage")
    assert list(answer.json) == ["error", "message", "retryable"]


# A call for each number of an error that a server can be made to answer without being broken.
CODES: dict[str, tuple[Any, int, int]] = {
    "no JSON": (b"{", rpc.PARSE_ERROR, 200),
    "no call": ({"jsonrpc": "2.0", "id": 1}, rpc.INVALID_REQUEST, 200),
    "another version": (
        {"jsonrpc": "1.0", "method": "settlement_status"},
        rpc.INVALID_REQUEST,
        200,
    ),
    "an empty batch": ([], rpc.INVALID_REQUEST, 200),
    "a long batch": ([{"method": "x"}] * (BATCH_MAX + 1), rpc.INVALID_REQUEST, 200),
    "no method": ({"method": "compute.job_submit"}, rpc.METHOD_NOT_FOUND, 200),
    "a method of bytes": ({"method": "courier.deliver"}, rpc.METHOD_NOT_FOUND, 200),
    "no parameters": ({"method": "compute.job_status"}, rpc.INVALID_PARAMS, 200),
    "parameters by place": (
        {"method": "compute.job_status", "params": ["j1"]},
        rpc.INVALID_PARAMS,
        200,
    ),
    "no id": (
        {"method": "compute.job_status", "params": {"job_id": "../x"}},
        rpc.INVALID_PARAMS,
        200,
    ),
    "no token": ({"method": "compute.job_cancel", "params": JOB}, rpc.REFUSED, 401),
    "no price": (
        {"method": "compute_market.price_board", "params": {"lane": "consumer"}},
        rpc.NO_PRICE_DATA,
        200,
    ),
    "no job": ({"method": "compute.job_status", "params": {"job_id": "x"}}, rpc.JOB_NOT_FOUND, 200),
}


@pytest.mark.parametrize(("call", "number", "status"), CODES.values(), ids=CODES)
def test_call_that_fails_has_a_number(call: Any, number: int, status: int, served: Served) -> None:
    answer = served.post(call)
    assert (answer.status, answer.json["error"]["code"]) == (status, number)
    assert (answer.json["jsonrpc"], answer.json["id"]) == ("2.0", None)
    document = json.loads(description())
    schema = {"$ref": "#/components/schemas/Failure", "components": document["components"]}
    assert jsonschema_rs.validator_for(schema).is_valid(answer.json)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (b"{", "this is no JSON: it ends too early"),
        ({"jsonrpc": "2.0", "id": 1}, "this is no request: method is missing"),
        (
            {"method": "compute.job_status"},
            "the parameters of compute.job_status: job_id is missing",
        ),
        (
            {"method": "compute.job_status", "params": {"job_id": "../x"}},
            "the parameters of compute.job_status: job_id is not of letters, digits and _.:@+-, "
            "the first a letter, digit or _",
        ),
        (
            {"method": "compute_market.price_board", "params": {"lane": "fast"}},
            "the parameters of compute_market.price_board: lane: 'fast' is none of industrial, "
            "consumer",
        ),
    ],
)
def test_call_that_is_wrong_is_told_in_plain_words(call: Any, told: str, served: Served) -> None:
    assert served.post(call).json["error"]["message"] == told


def test_reading_in_every_way_leaves_every_byte_as_it_was(served: Served) -> None:
    before = served.cli.files()
    for method in READS:
        parameters = PARAMETERS.get(method.name, {})
        for name in ("GET", "HEAD"):
            assert served.far.ask(name, f"/{method.name}{query(parameters)}").status == 200
        served.post({"method": method.name, "params": parameters})
        served.post([{"method": method.name, "params": parameters}] * 3, served.token)
    for call, _, _ in CODES.values():
        served.post(call)
    assert served.cli.files() == before


def test_no_snapshot_is_held_between_requests(served: Served) -> None:
    """Else the pages of all that is changed meanwhile could not be used again."""
    for method in READS:
        served.far.ask("GET", f"/{method.name}{query(PARAMETERS.get(method.name, {}))}")
    with lmdb.open(str(served.cli.home / "market"), readonly=True, max_dbs=0) as environment:
        readers = [line.split() for line in environment.readers().splitlines()[1:]]
    assert {snapshot for pid, _, snapshot in readers if int(pid) == served.pid} <= {"-"}


def cancel(job_id: str, **more: str) -> dict[str, Any]:
    return {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "compute.job_cancel",
        "params": {"job_id": job_id} | more,
    }


def test_job_is_cancelled_once_by_who_has_the_token(served: Served) -> None:
    first = served.post(cancel("c0"), served.token).json["result"]
    assert (first["state"], first["outcome"], first["changed"]) == ("cancelled", "cancelled", True)
    again = served.post(cancel("c0"), served.token).json["result"]
    assert again == first | {"outcome": "already_cancelled", "changed": False}
    assert served.job("c0")["state"] == "cancelled"
    described(rpc.METHODS["compute.job_cancel"].result, first)


def test_archived_job_is_cancelled_as_it_was(cli: Cli) -> None:
    """What is left of it is answered as it is described."""
    cli.active("j1")
    cli.ok("compute", "cancel", "j1")
    cli.advance(1)
    cli.ok("state", "archive", "--before", "0", "out.jsonl")
    token = cli.ok("serve", "token").strip()
    with serving() as far:
        call = json.dumps(cancel("j1")).encode()
        answer = far.ask("POST", "/", call, Authorization=f"Bearer {token}").json
    kind = rpc.METHODS["compute.job_cancel"].archived
    described(kind, answer["result"])
    schema = {
        "$ref": "#/components/schemas/Success",
        "components": json.loads(description())["components"],
    }
    assert jsonschema_rs.validator_for(schema).is_valid(answer)


def test_provider_cancels_as_one(served: Served) -> None:
    found = served.post(cancel("c1", by="provider"), served.token).json["result"]
    assert (found["ended_by"], found["cause"]) == ("provider", "cancelled_by_provider")


def test_job_that_has_completed_is_not_cancelled(served: Served) -> None:
    error = served.post(cancel("done"), served.token).json["error"]
    assert error["code"] == rpc.REFUSED
    assert error["message"] == "job already completed"
    assert error["data"]["error"] == "already_done"
    assert served.post(cancel("nobody"), served.token).json["error"]["code"] == rpc.JOB_NOT_FOUND


UNAUTHORIZED: dict[str, tuple[str, ...]] = {
    "none": (),
    "another": ("Bearer " + "0" * 64,),
    "an empty one": ("Bearer ",),
    "a part": ("Bearer {token:.63}",),
    "more": ("Bearer {token}0",),
    "another scheme": ("Basic {token}",),
    "no scheme": ("{token}",),
    "two": ("Bearer {token}", "Bearer {token}"),
    "no text": ("Bearer \xff{token}",),
}


@pytest.mark.parametrize("given", UNAUTHORIZED.values(), ids=UNAUTHORIZED)
def test_nobody_without_the_token_changes_anything(given: tuple[str, ...], served: Served) -> None:
    before = served.cli.files()
    connection = HTTPConnection("127.0.0.1", served.far.port, timeout=20)
    body = json.dumps(cancel("j1")).encode()
    connection.putrequest("POST", "/")
    connection.putheader("Content-Length", str(len(body)))
    for each in given:
        connection.putheader("Authorization", each.format(token=served.token))
    connection.endheaders(body)
    response = connection.getresponse()
    error = json.loads(response.read())["error"]
    connection.close()
    assert (response.status, response.getheader("WWW-Authenticate")) == (401, "Bearer")
    assert (error["code"], error["data"]["reason"]) == (rpc.REFUSED, "unauthorized")
    assert served.cli.files() == before


def test_scheme_is_a_word_in_any_case(served: Served) -> None:
    found = served.far.ask(
        "POST", "/", json.dumps(cancel("c2")).encode(), Authorization=f"bEARER {served.token}"
    )
    assert found.json["result"]["changed"]


def test_token_in_the_query_is_none(served: Served) -> None:
    body = json.dumps(cancel("j1")).encode()
    for target in (f"/?token={served.token}", f"/?access_token={served.token}"):
        assert served.far.ask("POST", target, body).status == 401


# Calls together.


def test_batch_is_answered_call_by_call_in_its_order(served: Served) -> None:
    stats = {"method": "compute_market.stats"}
    answer = served.post(
        [
            stats | {"jsonrpc": "2.0", "id": 1},
            stats | {"jsonrpc": "2.0"},  # A notification, which nobody waits for.
            cancel("c3") | {"id": 2},
            7,
            stats,
            {"jsonrpc": "2.0", "id": 3, "method": "x"},
        ],
        served.token,
    )
    ids = [each["id"] for each in answer.json]
    assert (answer.status, ids) == (200, [1, 2, None, None, 3])
    assert answer.json[1]["result"]["outcome"] == "cancelled"
    assert [each["error"]["code"] for each in (answer.json[2], answer.json[4])] == [-32600, -32601]
    before, after = (answer.json[n]["result"]["industrial_backlog"] for n in (0, 3))
    assert after == before - 1


def test_batch_without_the_token_changes_nothing_and_goes_on(served: Served) -> None:
    answer = served.post([cancel("j1"), {"id": 7, "method": "settlement_status"}])
    assert (answer.status, answer.json[0]["error"]["code"]) == (200, rpc.REFUSED)
    assert (answer.json[1]["id"], served.job("j1")["state"]) == (7, "active")


def test_notification_is_done_and_not_answered(served: Served) -> None:
    call = cancel("c4")
    del call["id"]
    assert served.post(call).status == 401
    for sent in (call, [call]):
        answer = served.post(sent, served.token)
        assert (answer.status, answer.body) == (204, b"")
    assert served.job("c4")["state"] == "cancelled"


# Methods and paths that are not those that are meant.

CONFUSED = [
    *(("GET", "/compute.job_cancel?job_id=j1", 405), ("POST", "/compute.job_cancel", 405)),
    *(("GET", "/net.reputation_gossip", 405), ("DELETE", "/compute.job_status", 405)),
    *(("POST", "/compute.job_status?job_id=j1", 405), ("PUT", "/", 405), ("TRACE", "/", 405)),
    *(("OPTIONS", "/", 405), ("OPTIONS", "/compute_market.stats", 405), ("OPTIONS", "*", 400)),
    *(("HEAD", "/compute_market.stats", 200), ("HEAD", "/courier.deliver", 405)),
    *(("GET", "//compute_market.stats", 404), ("GET", "/compute_market.stats/", 404)),
    *(("GET", "/x/../compute_market.stats", 404), ("GET", "/./compute_market.stats", 404)),
    *(("GET", "/x/%2e%2e/compute_market.stats", 404), ("GET", "/%2fcompute_market.stats", 404)),
    *(("GET", "/compute_market%2Fstats", 404), ("GET", "/compute_market.stats%0a", 404)),
    *(("GET", "/compute_market.stats%00", 404), ("GET", "\\compute_market.stats", 400)),
    *(("GET", "/COMPUTE_MARKET.STATS", 404), ("GET", "/compute_market.stats;x", 404)),
    *(("GET", "/compute_market%2estats", 200), ("GET", "/compute_market.stats?", 200)),
    *(("GET", "http://elsewhere.example/compute_market.stats", 400), ("BREW", "/", 405)),
    *(("POST", "//", 404), ("POST", "/.", 404), ("GET", "/rpc_results", 404)),
]


@pytest.mark.parametrize(("method", "target", "status"), CONFUSED, ids=lambda part: str(part))
def test_request_means_one_thing(method: str, target: str, status: int, served: Served) -> None:
    before = served.job("j1")
    body = json.dumps(cancel("j1")).encode() if method in ("POST", "PUT") else b""
    assert served.far.ask(method, target, body).status == status
    assert served.job("j1") == before


def test_answer_to_a_method_that_is_none_names_those_that_are(served: Served) -> None:
    for target, allowed in (("/compute.job_status", "GET, HEAD"), ("/compute.job_cancel", "")):
        headers = served_headers(served.far, "DELETE", target)
        assert headers["allow"] == allowed


def served_headers(far: Far, method: str, target: str, **sent: str) -> dict[str, str]:
    connection = HTTPConnection("127.0.0.1", far.port, timeout=20)
    connection.request(method, target, headers=sent)
    response = connection.getresponse()
    response.read()
    connection.close()
    return {name.lower(): value for name, value in response.getheaders()}


def test_no_other_page_is_let_in_and_nothing_is_kept(served: Served) -> None:
    """Neither headers for pages of others, nor cookies, nor answers in a cache."""
    sent = {"Origin": "https://elsewhere.example", "Access-Control-Request-Method": "POST"}
    for target in ("/", "/openapi.json", "/healthz", "/nothing", "/compute_market.stats"):
        for method in ("GET", "POST", "OPTIONS"):
            headers = served_headers(served.far, method, target, **sent)
            assert not [name for name in headers if name.startswith("access-control-")]
            assert "set-cookie" not in headers
    assert served_headers(served.far, "GET", "/nothing")["content-type"] == "application/json"
    described_ = served.far.ask("GET", "/openapi.json").json["paths"]
    for target in (*described_, "/openapi.json", "/jobs", "/nothing"):
        headers = served_headers(served.far, "GET", target)
        assert headers["cache-control"] == "no-store", target
        assert headers["x-content-type-options"] == "nosniff", target


# The description.


def test_description_names_every_way_to_call_a_method(served: Served) -> None:
    document = served.far.ask("GET", "/openapi.json").json
    assert document["openapi"] == "3.1.0"
    assert list(document["components"]["securitySchemes"]) == ["token"]
    for path, operations in document["paths"].items():
        for method in ("GET", "POST"):
            described_ = method.lower() in operations
            # What is not described is not there; the page of `/` is for persons.
            if not described_ and path != "/":
                assert served.far.ask(method, path).status == 405, (method, path)
            elif described_:
                assert served.far.ask(method, path).status not in (404, 405), (method, path)
    names = {path[1:] for path in document["paths"]}
    by_path = {method.name for method in READS} | {"courier.deliver"}
    assert by_path <= names
    calls = document["components"]["schemas"]["Call"]["oneOf"]
    assert {call["title"] for call in calls} == set(rpc.METHODS) - {"courier.deliver"}


def test_every_reference_of_the_description_leads_somewhere() -> None:
    document = json.loads(description())

    def check(part: Any) -> None:
        if isinstance(part, dict):
            if "$ref" in part:
                found = document
                for name in part["$ref"].removeprefix("#/").split("/"):
                    found = found[name]
            for each in part.values():
                check(each)
        elif isinstance(part, list):
            for each in part:
                check(each)

    check(document)
    jsonschema_rs.validator_for(document["components"]["schemas"]["Failure"] | document)


# One transaction for each change, and the token.


def test_each_change_is_a_transaction_of_its_own(cli: Cli) -> None:
    cli.active("j1", "j2")
    token = cli.ok("serve", "token").strip()
    with serving() as far:

        def transactions() -> int:
            return far.view(lambda txn: len(list(txn.scan(EVENTS))))

        before = transactions()
        answer = far.ask(
            "POST",
            "/",
            json.dumps([cancel("j1"), cancel("j2"), cancel("j1")]).encode(),
            Authorization=f"Bearer {token}",
        )
        outcomes = [each["result"]["outcome"] for each in answer.json]
        assert outcomes == ["cancelled", "cancelled", "already_cancelled"]
        assert transactions() == before + 2


def test_server_makes_a_token_where_there_is_none(cli: Cli) -> None:
    cli.ok("state", "init")
    path = cli.home / "serve.token"
    cli.ok("serve", "--check", "--port", "0")
    assert not path.exists()
    process = Process(cli)
    assert path.stat().st_mode & 0o777 == 0o600
    token = path.read_text().strip()
    assert len(bytes.fromhex(token)) == 32
    # Nobody else learns it: not from the log, nor from what is printed.
    process.far.ask("POST", "/", json.dumps(cancel("x")).encode(), Authorization=f"Bearer {token}")
    process.process.terminate()
    out, err = process.process.communicate(timeout=20)
    assert token.encode() not in out + err
    assert cli.document("serve", "token") == {"token": token, "changed": False}


def test_rotated_token_is_taken_by_a_server_that_runs(cli: Cli) -> None:
    cli.active("j1", "j2")
    before = cli.ok("serve", "token").strip()
    with serving() as far:

        def asked(job_id: str, token: str) -> int:
            body = json.dumps(cancel(job_id)).encode()
            return far.ask("POST", "/", body, Authorization=f"Bearer {token}").status

        assert asked("j1", before) == 200
        after = cli.ok("serve", "token", "--rotate").strip()
        assert after != before
        assert (asked("j2", before), asked("j2", after)) == (401, 200)
        (cli.home / "serve.token").unlink()
        assert (asked("j2", after), asked("j2", "")) == (401, 401)


def linked(path: Path) -> None:
    other = path.with_name("elsewhere")
    other.write_text("0" * 64 + "\n")
    other.chmod(0o600)
    path.symlink_to(other)


def readable(path: Path) -> None:
    path.write_text("0" * 64 + "\n")
    path.chmod(0o640)


def short(path: Path) -> None:
    path.write_text("0\n")
    path.chmod(0o600)


def directory(path: Path) -> None:
    path.mkdir()


def of_another(path: Path) -> None:
    short(path)
    os.chown(path, 54_321, -1)


UNSAFE = [linked, readable, short, directory, os.mkfifo]
if os.geteuid() == 0:  # Nobody else may give a file away.
    UNSAFE.append(of_another)
# What another token may take the place of.
REPLACED = (readable, short, of_another)


@pytest.mark.parametrize("makes", UNSAFE, ids=lambda makes: makes.__name__)
def test_token_file_that_is_not_safe_is_not_read(cli: Cli, makes: Any) -> None:
    cli.active()
    path = cli.home / "serve.token"
    with serving() as far:
        path.unlink()
        makes(path)
        body = json.dumps(cancel("j1")).encode()
        answer = far.ask("POST", "/", body, Authorization="Bearer " + "0" * 64)
        assert (answer.status, answer.json["error"]["code"]) == (500, rpc.INTERNAL)
        assert str(cli.home) not in answer.body.decode()
        # Who only reads has nothing to do with it.
        assert far.ask("GET", "/compute.job_status?job_id=j1").json["state"] == "active"
    done = cli("serve", "token")
    assert (done.code, done.out) == (2, "")
    assert str(path) in done.err
    checked = cli("serve", "--check", "--port", "0")
    assert (checked.code, checked.out, str(path) in checked.err) == (2, "", True)
    rotated = cli("serve", "token", "--rotate")
    assert rotated.code == (0 if makes in REPLACED else 2)
    assert sorted(each.name for each in cli.home.glob("serve.token*")) == ["serve.token"]


def test_token_needs_a_market(cli: Cli) -> None:
    assert cli("serve", "token").code == 3
    assert not cli.home.exists()


# The two ports.


def test_it_is_served_on_both_ports_unless_one_is_taken(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:

    cli.ok("state", "init")
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as two,
    ):
        first, second = (each.getsockname()[1] for each in (one, two))
    monkeypatch.setattr("tb_cli.serve.PORT", first)
    monkeypatch.setattr("tb_cli.serve.SECOND_PORT", second)
    urls = [f"http://127.0.0.1:{port}" for port in (first, second)]
    assert cli.ok("serve", "--check") == f"could serve on {urls[0]} and {urls[1]}\n"
    assert cli.document("serve", "--check")["urls"] == urls
    with socket.create_server(("127.0.0.1", second)):
        done = cli("serve", "--check")
        assert (done.code, done.out) == (0, f"could serve on {urls[0]}\n")
        assert f"port {second} is in use" in done.err
    with socket.create_server(("127.0.0.1", first)):
        assert cli("serve", "--check").code == 8
