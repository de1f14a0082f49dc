"""Requests that mean more than one thing, or too much: each is turned away, and nothing after it.

One server answers all of them. What is under test is bytes, so they are written out.
"""

import gzip
import re
from collections.abc import Iterator

import pytest
from starlette.requests import Request
from starlette.responses import Response

from tb_cli.network import answers, server
from tb_cli.network.request_log import RequestLog
from tests.support.serving import HOSTS, Far, answering

# What a second request in the same bytes would be answered by, if it were read as one.
_NEXT = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def far() -> Iterator[Far]:
    async def echo(request: Request) -> Response:
        return answers.json_response({"bytes": len(await request.body())})

    with RequestLog() as log:
        app = server.application(
            {"/": {"POST": echo}, "/healthz": {"GET": echo}, "/smuggled": {"GET": echo}},
            HOSTS,
            log,
        )
        with answering(app, log) as found:
            yield found


def statuses(said: bytes) -> list[int]:
    """Those of all answers on a connection."""
    return [int(each) for each in re.findall(rb"HTTP/1\.1 (\d{3}) ", said)]


def posted(*headers: bytes, body: bytes = b"") -> bytes:
    return b"\r\n".join((b"POST / HTTP/1.1", b"Host: localhost", *headers, b"", body))


CHUNKED = b"Transfer-Encoding: chunked"

# By what they try: bytes that could be read as one request or as two.
AMBIGUOUS = {
    "two ways to tell the length": posted(b"Content-Length: 4", CHUNKED, body=b"0\r\n\r\n"),
    "the same in the other order": posted(CHUNKED, b"Content-Length: 4", body=b"0\r\n\r\n"),
    "a length and a folded coding": posted(
        b"Content-Length: 4", b"Transfer-Encoding:\r\n chunked", body=b"0\r\n\r\n"
    ),
    "two lengths": posted(b"Content-Length: 0", b"Content-Length: 5", body=b"GET /"),
    "two lengths in one": posted(b"Content-Length: 0, 5", body=b"GET /"),
    "a length with a sign": posted(b"Content-Length: +4", body=b"xxxx"),
    "a negative length": posted(b"Content-Length: -4", body=b"xxxx"),
    "a length in another base": posted(b"Content-Length: 0x4", body=b"xxxx"),
    "a length in words": posted(b"Content-Length: four", body=b"xxxx"),
    "a length beyond 20 digits": posted(b"Content-Length: " + b"9" * 30, body=b"xxxx"),
    "an unknown coding": posted(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n"),
    "a coding that hides another": posted(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"),
    "chunked twice": posted(CHUNKED, CHUNKED, body=b"0\r\n\r\n"),
    "a coding with a control character": posted(
        b"Transfer-Encoding: \x0bchunked", body=b"0\r\n\r\n"
    ),
    "a blank before the colon": posted(b"Content-Length : 4", body=b"xxxx"),
    "a name with a blank": posted(b"Content Length: 4", body=b"xxxx"),
    "a carriage return in a value": posted(b"X: a\rContent-Length: 4", body=b"xxxx"),
    "a NUL in a value": posted(b"X: a\0b", body=b""),
    "a chunk without an end": posted(CHUNKED, body=b"3\r\nabcX0\r\n\r\n"),
    "a chunk size with a sign": posted(CHUNKED, body=b"-1\r\nabc\r\n0\r\n\r\n"),
    "a chunk size with a prefix": posted(CHUNKED, body=b"0x3\r\nabc\r\n0\r\n\r\n"),
    "a chunk size of 21 digits": posted(CHUNKED, body=b"F" * 21 + b"\r\nabc"),
    "a chunk with a bare line feed": posted(CHUNKED, body=b"3\nabc\n0\n\n"),
    "a chunk extension without an end": posted(CHUNKED, body=b"3;" + b"x" * 100_000),
    "two hosts": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
    "no host": b"GET /healthz HTTP/1.1\r\n\r\n",
    "an address with a host": b"GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "an address of ourselves": b"GET http://localhost/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "no path": b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a tunnel": b"CONNECT evil.example:443 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a path without a slash": b"GET healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "two blanks": b"GET  /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "no version": b"GET /healthz\r\n\r\n",
    "another version": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


@pytest.mark.parametrize("sent", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_request_that_can_be_read_in_two_ways_is_refused_and_nothing_after_it_read(
    far: Far, sent: bytes
) -> None:
    said = far.say(sent + _NEXT)
    assert statuses(said) == [400], said
    assert b"connection: close" in said.lower()


# What looks odd and means one thing, with the length of the body that it means.
PLAIN = {
    "line feeds alone": (b"POST / HTTP/1.1\nHost: localhost\nContent-Length: 3\n\nabc", 3),
    "the same length twice": (posted(b"Content-Length: 3", b"Content-Length: 3", body=b"abc"), 3),
    "a folded header": (posted(b"Content-Length: 3", b"X: a\r\n b", body=b"abc"), 3),
    "chunk extensions": (posted(CHUNKED, body=b"3;a=b\r\nabc\r\n0;c\r\n\r\n"), 3),
    "trailers": (posted(CHUNKED, body=b"3\r\nabc\r\n0\r\nContent-Length: 9\r\n\r\n"), 3),
    "a coding in capitals": (posted(b"TRANSFER-ENCODING: CHUNKED", body=b"1\r\na\r\n0\r\n\r\n"), 1),
    "an upgrade": (posted(b"Connection: upgrade", b"Upgrade: h2c", b"Content-Length: 0"), 0),
    "no coding": (posted(b"Content-Encoding: identity", b"Content-Length: 1", body=b"a"), 1),
}


@pytest.mark.parametrize(("sent", "length"), PLAIN.values(), ids=PLAIN)
def test_request_that_only_looks_odd_is_one_and_the_next_another(
    far: Far, sent: bytes, length: int
) -> None:
    said = far.say(sent + _NEXT)
    assert statuses(said) == [200, 200], said
    assert re.findall(rb'\{"bytes":(\d+)\}', said) == [b"%d" % length, b"0"]


TOO_MUCH = {
    "a head that comes at once": (posted(b"X: " + b"x" * 17_000), 431),
    "many headers": (posted(*[b"X: y"] * 101), 431),
    "a long path": (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
    "a long query": (b"GET /healthz?" + b"x" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
    "a head without an end": (b"GET / HTTP/1.1\r\n" + b"X: " + b"x" * 200_000, 400),
    "many headers without an end": (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20_000, 400),
    "a compressed bomb": (
        posted(
            b"Content-Encoding: gzip",
            b"Content-Length: %d" % len(gzip.compress(bytes(2**20))),
            body=gzip.compress(bytes(2**20)),
        ),
        415,
    ),
    "a coding nobody knows": (posted(b"Content-Encoding: x", b"Content-Length: 0"), 415),
}


@pytest.mark.parametrize(("sent", "status"), TOO_MUCH.values(), ids=TOO_MUCH)
def test_request_that_is_too_much_is_refused_and_the_connection_closed(
    far: Far, sent: bytes, status: int
) -> None:
    said = far.say(sent + _NEXT)
    assert statuses(said) == [status], said[:1000]


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:80", "localhost.evil.example", "127.0.0.1.evil.example"),
        *("localhost@evil.example", "localhost:80:80", "[::1", "0.0.0.0", "2130706433", ""),
    ],
)
def test_name_that_leads_here_from_elsewhere_is_not_answered(far: Far, host: str) -> None:
    said = far.say(f"GET /healthz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    assert statuses(said) in ([421], [400])


@pytest.mark.parametrize(
    "path",
    [
        *("/healthz/", "//healthz", "/./healthz", "/x/../healthz", "/healthz;x", "/HEALTHZ"),
        *(
            "/healthz%00",
            "/healthz%2f",
            "/%2e%2e/healthz",
            "/healthz%20",
            "/healthz%3Fx",
            "/static/",
        ),
    ],
)
def test_path_that_is_almost_one_is_another(far: Far, path: str) -> None:
    assert far.ask("GET", path).status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "TRACE", "get", "X"])
def test_method_that_is_another_is_not_taken_for_the_right_one(far: Far, method: str) -> None:
    for name in ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"):
        answer = far.ask(method, "/healthz?_method=GET", **{name: "GET"})
        assert answer.status == 405


def test_answers_tell_neither_what_serves_nor_its_version(far: Far) -> None:
    for sent in (_NEXT, b"nonsense\r\n\r\n", _NEXT.replace(b"smuggled", b"nothing")):
        said = far.say(sent).lower()
        assert not re.search(rb"\r\nserver:|uvicorn|starlette|python|h11", said), said


def test_text_of_a_request_comes_back_in_no_answer(far: Far) -> None:
    """Whatever a browser would make of it."""
    script = b"<script>alert(1)</script>"
    for sent in (
        b"GET /" + script + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: " + script + b"\r\nConnection: close\r\n\r\n",
        b"GET /healthz?" + script + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        script + b" / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ):
        assert b"script" not in far.say(sent)
