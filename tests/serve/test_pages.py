"""The pages for a person, without a browser: what they say, what they may not say, and how much
of the market they look at."""

import json
import re
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from compute_market import concerns, parties
from compute_market.errors import IntegrityError
from compute_market.jobs import present
from compute_market.store.schema import (
    BUNDLE_RECEIPTS,
    EVENTS,
    JOBS,
    OFFERS,
    POSTINGS,
    RECEIPTS,
    REPUTATION,
    SETTLEMENTS,
    SLICES,
)
from compute_market.store.table import Table
from tb_cli.network.pages import documents
from tb_cli.network.pages.documents import Asked
from tb_cli.network.pages.rendering import Renderer
from tb_cli.network.pages.routes import PAGES as TEMPLATES
from tests.serve.market import BASE, HARM, ODD_BUYER, ODD_JOB, PAGES, busy_server, operated, routed
from tests.support.effort import sample
from tests.support.laws import busy_market
from tests.support.market import Market
from tests.support.serving import Serving, serving
from tests.support.state import put_raw

_VOID = {"wbr", "meta", "link", "img", "br", "input", "hr"}
_STATIC = r"/static/[a-z.]+\?[0-9a-f]{8}"


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with busy_server(tmp_path_factory.mktemp("pages")) as found:
        yield found


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Market]:
    """The market by itself, to be damaged."""
    found = busy_market(tmp_path_factory.mktemp("busy") / "market")
    yield found
    found.store.close()


class Read(HTMLParser):
    """A page taken apart. Elements that are not closed in order are an error."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, *tags: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag in tags]

    @property
    def links(self) -> list[str]:
        return [str(each["href"]) for each in self.all("a")]


def page_of(far: Serving, path: str) -> Read:
    answer = far.ask("GET", path)
    assert answer.status == 200, (path, answer)
    return Read(answer.body.decode())


@pytest.mark.parametrize("path", PAGES.values(), ids=PAGES)
def test_page_is_whole_and_takes_no_text_for_its_own(far: Serving, path: str) -> None:
    page = page_of(far, path)
    # Nothing of it but its own elements; nothing is styled, run or fetched but its own files.
    assert {"script", "html", "main", "h1"} <= {tag for tag, _ in page.elements}
    assert page.all("img", "b", "style", "iframe", "form", "object", "base") == []
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name == "style" or name.startswith("on")], tag
    for script in page.all("script"):
        assert re.fullmatch(_STATIC, script["src"] or "")
    for link in page.all("link"):
        assert re.fullmatch(_STATIC, link["href"] or "")
    assert all(re.fullmatch(r"[/#][!-~]*", link) for link in page.links)
    assert "\u202e" not in page.text
    assert "\\u202f" not in page.text
    assert "49" not in re.findall(r"[^ ]*alert[^ ]*", page.text)
    # Who does not see it is told the same.
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(each.get("scope") in ("col", "row") for each in page.all("th"))
    for svg in page.all("svg"):
        assert svg.get("aria-label") if svg.get("role") == "img" else svg.get("aria-hidden")
    assert len([each for each in page.links if each == "#main"]) == 1
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_every_link_of_every_page_leads_to_one(far: Serving) -> None:
    seen: set[str] = set()
    left = ["/"]
    while left:
        path = left.pop().partition("#")[0]
        if path and path not in seen:
            seen.add(path)
            left += page_of(far, path).links
    assert {path.partition("?")[0] for path in PAGES.values()} <= seen
    assert {f"/jobs/{ODD_JOB}", f"/parties/{ODD_BUYER}"} <= seen


def test_harm_is_shown_as_it_was_written(far: Serving) -> None:
    shown = HARM.replace("\u202e", "\\u202e")
    for path in ("/", "/settlement", "/events"):
        assert shown in page_of(far, path).text, path
    assert HARM.partition("\u202e")[0] in page_of(far, "/jobs/harm").text


def test_overview_says_what_is_wrong_first(far: Serving) -> None:
    text = " ".join(page_of(far, "/").text.split())
    assert "7 to watch" in text
    assert "watch Settlement is in dry_run, no money moves" in text
    assert "1 offer is barred: bad standing." in text
    assert "3 jobs wait for an offer, most for: no offer." in text
    assert "1 bundle has not arrived at the first attempt." in text


def test_overview_says_why_jobs_wait_for_a_slot(far: Serving) -> None:
    text = " ".join(page_of(far, "/").text.split())
    assert "Waits for a slot, held by Jobs slots8 " in text


def test_job_says_why_it_waits(far: Serving) -> None:
    assert "held by: slots" in page_of(far, "/jobs/wait-low").text
    assert "held by: no offer" in page_of(far, "/jobs/pend").text


def test_headers_let_nothing_else_in(far: Serving) -> None:
    from http.client import HTTPConnection

    for path in ("/", "/jobs/none", page_of(far, "/").all("script")[0]["src"] or ""):
        connection = HTTPConnection("127.0.0.1", far.port, timeout=20)
        connection.request("GET", path)
        response = connection.getresponse()
        policy = response.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; style-src 'self'; script-src 'self';")
        assert "unsafe" not in policy
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["referrer-policy"] == "no-referrer"
        assert "access-control-allow-origin" not in response.headers
        assert "set-cookie" not in response.headers
        connection.close()


def test_pages_are_only_looked_at(far: Serving) -> None:
    assert far.ask("HEAD", "/jobs").body == b""
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert far.ask(method, "/jobs").status == 405
    before = far.view(lambda txn: txn.number("event_seq"))
    for path in PAGES.values():
        page_of(far, path)
    assert far.view(lambda txn: txn.number("event_seq")) == before


UNKNOWN = {
    "job": "/jobs/none",
    "offer": "/offers/none",
    "party": "/parties/none",
    "no id": "/jobs/%22%3E%3Cscript%3Ealert(1)",
    "long": f"/jobs/{'x' * 3000}",
    "file": "/static/renew.py",
}


@pytest.mark.parametrize("path", UNKNOWN.values(), ids=UNKNOWN)
def test_unknown_is_a_page_of_its_own(far: Serving, path: str) -> None:
    answer = far.ask("GET", path)
    assert answer.status == 404
    page = Read(answer.body.decode())
    assert "Not found" in page.text
    assert len(page.all("script")) == 1


@pytest.mark.parametrize("query", ["before=x", "before=" + "9" * 40, "before=²"])
def test_page_of_a_log_that_goes_on_nowhere_is_not_understood(far: Serving, query: str) -> None:
    answer = far.ask("GET", f"/events?{query.replace('²', '%C2%B2')}")
    assert (answer.status, "Not understood" in answer.body.decode()) == (400, True)


def test_listings_go_on_until_all_was_seen(far: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MANY", 5)
    stored = far.view(lambda txn: [key.decode() for key, _ in txn.scan(JOBS)])
    path, seen = "/jobs?list=all", []
    while path:
        page = page_of(far, path)
        rows = [str(each["data-key"]) for each in page.all("tr") if "data-key" in each]
        assert len(rows) <= 5
        seen += rows
        path = next((each for each in page.links if "after=" in each), "")
    assert seen == stored
    path, numbers = "/events", []
    while path:
        page = page_of(far, path)
        numbers += [str(each["data-key"]) for each in page.all("tr") if "data-key" in each]
        path = next((each for each in page.links if "before=" in each), "")
    last = far.view(lambda txn: txn.number("event_seq"))
    assert numbers == [f"event-{seq}" for seq in range(last, 0, -1)]


def test_static_files_are_kept_by_their_content(far: Serving) -> None:
    page = page_of(far, "/")
    kinds = {"style.css": "text/css", "renew.js": "text/javascript", "icon.svg": "image/svg+xml"}
    found = {str(each.get("href") or each.get("src")) for each in page.all("link", "script")}
    assert {path.split("/")[-1].partition("?")[0] for path in found} == set(kinds)
    for path in found:
        assert far.ask("GET", path).status == 200


def test_wheel_has_what_pages_are_made_of() -> None:
    # Hatchling takes every file of a package but what is excluded or ignored by git.
    root = Path(__file__).parents[2]
    templates = root / "cli" / "tb_cli" / "network" / "templates"
    hatch = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    assert "cli/tb_cli" in hatch["targets"]["wheel"]["packages"]
    ignored = (root / ".gitignore").read_text().split()
    files = [path for path in templates.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".html", ".css", ".js", ".svg"}
    assert {page.template for page in TEMPLATES.values()} <= {path.stem for path in files}
    assert not [path for path in files if any(path.match(pattern) for pattern in ignored)]


def test_empty_market_has_every_page(tmp_path: Path) -> None:
    with operated(tmp_path) as operator:
        operator.ok("state", "init")
        with serving() as far:
            for path in ("/", "/jobs", "/jobs?list=all", "/offers", "/parties", "/prices"):
                page_of(far, path)
            text = " ".join(page_of(far, "/").text.split())
            assert "1 to watch" in text
            assert "no offer is open: no job can be placed" in text.lower()
            for path in ("/settlement", "/courier", "/events"):
                page_of(far, path)


def test_damage_is_told_and_spares_other_pages(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with operated(tmp_path) as operator:
        operator.ok("state", "init")
        operator.active("j1", "j2")
        operator.audited = False
        operator.update(lambda txn: put_raw(txn, JOBS, b"j1", b"rubbish"))
        with serving() as far:
            answer = far.ask("GET", "/jobs/j1")
            assert answer.status == 500
            assert "Damaged" in Read(answer.body.decode()).text
            assert b"rubbish" not in answer.body
            assert b"table" not in answer.body
            page_of(far, "/jobs/j2")
            page_of(far, "/events")
        lines = [
            json.loads(line) for line in capfd.readouterr().err.splitlines() if line[:1] == "{"
        ]
        assert any("table jobs" in line.get("error", "") for line in lines)


def test_pages_read_no_more_of_a_larger_market(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of twice as many jobs, offers, parties and events they decode no more records."""
    for name in ("FEW", "SOME", "MANY"):
        monkeypatch.setattr(documents, name, 3)
    for module in (concerns, documents, parties, present):
        monkeypatch.setattr(module, "LOOKED_AT", 20)
    decoded = 0
    decode: Callable[[Table[Any], bytes, bytes], Any] = Table.decode

    def counted(self: Table[Any], key: bytes, payload: bytes) -> Any:
        nonlocal decoded
        decoded += 1
        return decode(self, key, payload)

    monkeypatch.setattr(Table, "decode", counted)
    market.configure(slots=3)
    names = {"/jobs/{id}": "job-0-05", "/offers/{id}": "small-0-05", "/parties/{id}": "prov"}
    counts: list[dict[str, int]] = []
    for round_ in range(2):
        for number in range(40):
            name = f"{round_}-{number:02}"
            market.post(f"prov-{name}", offer_id=f"offer-{name}", price_per_unit=100, job_id="none")
            market.post(offer_id=f"small-{name}", units=1)
            market.submit(f"job-{name}", deadline_secs=3600)
        counts.append({})
        for path, page in TEMPLATES.items():
            decoded = 0
            market.view(partial(page.document, asked=Asked(names.get(path, ""))))
            counts[-1][path] = decoded
    assert counts[0] == counts[1]
    assert sum(counts[0].values()) > len(TEMPLATES)


# What may be damaged, and the pages that have to be there all the same.
DAMAGED_TABLES = {
    JOBS: ("/", "/jobs", "/jobs?list=all", "/offers", "/offers/main", "/parties/buyer", "/events"),
    OFFERS: ("/", "/jobs", "/offers", "/jobs/handed", "/parties/other", "/events"),
    EVENTS: ("/", "/jobs", "/jobs/handed", "/offers/main", "/parties/buyer", "/events"),
    BUNDLE_RECEIPTS: ("/", "/courier", "/parties/other"),
    RECEIPTS: ("/", "/settlement", "/jobs/moved"),
    SETTLEMENTS: ("/", "/settlement", "/jobs/moved"),
    SLICES: ("/", "/jobs/handed"),
    REPUTATION: ("/parties/other",),
    POSTINGS: ("/parties/buyer", "/parties/prov", "/parties/other", "/parties/poor"),
}


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer()


@contextmanager
def damaged(market: Market, table: Table[Any], key: bytes) -> Iterator[None]:
    """A market with one bit of a stored value turned over."""
    good = market.view(lambda txn: txn.stored(table, key))
    bad = bytes([good[0] ^ 1]) + good[1:]
    market.alone(lambda txn: put_raw(txn, table, key, bad))
    yield
    market.alone(lambda txn: put_raw(txn, table, key, good))


@pytest.mark.parametrize("table", DAMAGED_TABLES, ids=lambda table: table.name)
def test_damaged_record_takes_no_page_away(
    busy: Market, renderer: Renderer, table: Table[Any]
) -> None:
    """Whichever of its table it is: pages say so, and stay but for that of the record itself."""
    said: set[str] = set()
    keys: list[bytes] = busy.view(lambda txn: [key for key, _ in txn.scan(table)])
    if table is SLICES:
        keys = [key for key in keys if key.startswith(b"handed\0")] or keys
    for key in {keys[0], keys[-1], *sample(keys, 1)}:
        with damaged(busy, table, key):
            for path in DAMAGED_TABLES[table]:
                page, asked = routed(path)
                try:
                    document = BASE | busy.view(partial(page.document, asked=asked))
                except IntegrityError:
                    assert path.endswith(f"/{key.decode(errors='replace')}"), (path, key)
                    continue
                text = renderer.page(page.template, document).decode()
                if "damaged" in text:
                    said.add(path)
    assert said
    assert "/" not in DAMAGED_TABLES[table] or table in (OFFERS, REPUTATION, SLICES) or "/" in said
