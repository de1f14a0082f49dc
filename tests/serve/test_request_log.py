"""The lines of the log, whatever those whose requests they are about have put into them."""

import json
import re

import pytest

from tb_cli.network import answers
from tb_cli.network.request_log import LogFormat, RequestLog

REQUEST = {
    "type": "http",
    "client": ("127.0.0.1", 5000),
    "method": "GET",
    "path": "/healthz",
    "tb_error": "this failed here",
}


def logged(capsys: pytest.CaptureFixture[str], form: LogFormat, **fields: object) -> str:
    """What one entry comes to, without its time."""
    with RequestLog(form) as log:
        log.tell(**fields)
    (line,) = capsys.readouterr().err.splitlines()
    if form == "json":
        document = json.loads(line)
        assert document.pop("at_ms") > 1_700_000_000_000
        return json.dumps(document)
    at, _, rest = line.partition(" ")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", at)
    return rest


def test_request_leaves_a_line_in_either_form(capsys: pytest.CaptureFixture[str]) -> None:
    entry = answers.entry(REQUEST, 500, 7)
    assert json.loads(logged(capsys, "json", **entry)) == {
        "client": "127.0.0.1:5000",
        "method": "GET",
        "path": "/healthz",
        "status": 500,
        "ms": 7,
        "error": "this failed here",
    }
    in_words = logged(capsys, "text", **entry)
    assert in_words == '127.0.0.1:5000 GET "/healthz" 500 7ms this failed here'


def test_client_by_a_socket_in_the_file_system_has_no_address() -> None:
    assert answers.entry(REQUEST | {"client": None}, 200, 0)["client"] == "-"


def test_what_is_told_beside_is_a_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    with RequestLog("text") as log:
        log.write("one\ntwo\n")
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(" ")[2] for line in lines] == ["one", "two"]
    assert logged(capsys, "text", lines_dropped=5) == "lines_dropped=5"


@pytest.mark.parametrize("form", ["json", "text"])
@pytest.mark.parametrize("path", ["/a\nb", "/\x1b[31m", '/" 200 0ms', "/\u202e", "/ü", "/\x7f"])
def test_path_forges_no_line_and_commands_no_terminal(
    capsys: pytest.CaptureFixture[str], form: LogFormat, path: str
) -> None:
    entry = answers.entry(REQUEST | {"path": path, "tb_error": f"no {path}"}, 404, 0)
    line = logged(capsys, form, **entry)
    assert line.isprintable()
    if form == "text":
        _, _, rest = line.partition('GET "')
        shown, _, after = rest.partition('" 404 0ms')
        assert not re.search(r'(?<!\\)"', shown)
        assert after.startswith(" no /")
