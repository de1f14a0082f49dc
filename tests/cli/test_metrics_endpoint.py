"""`GET /metrics` of a server."""

from collections.abc import Iterator
from http.client import HTTPConnection

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_families
from prometheus_client.parser import text_string_to_metric_families as families

from compute_market.metrics import METRICS
from tests.support.cli import Cli
from tests.support.processes import locked
from tests.support.serving import Serving, serving

pytest_plugins = ("tests.support.cli",)

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPEN = "application/openmetrics-text"
PROMETHEUS = f"{OPEN};version=1.0.0,{OPEN};version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5"


@pytest.fixture
def far(cli: Cli) -> Iterator[Serving]:
    cli.real()
    cli.post()
    cli.submit("j1")
    with serving() as found:
        yield found


def scraped(far: Serving, method: str = "GET", accept: str | None = None) -> tuple[str, str, bytes]:
    """Its type, what it varies by, and its text."""
    connection = HTTPConnection("127.0.0.1", far.port, timeout=20)
    connection.request(method, "/metrics", headers={} if accept is None else {"Accept": accept})
    response = connection.getresponse()
    assert response.status == 200
    found = response.headers["content-type"], response.headers["vary"], response.read()
    connection.close()
    return found


@pytest.mark.parametrize("accept", [None, "*/*", "text/html", "text/plain;version=0.0.4"])
def test_scrape_is_in_the_text_format(far: Serving, accept: str | None) -> None:
    kind, vary, text = scraped(far, accept=accept)
    assert (kind, vary) == (TEXT, "Accept")
    found = {family.name for family in families(text.decode())}
    assert found == {metric.name.removesuffix("_total") for metric in METRICS}


def test_scrape_is_open_metrics_where_that_is_asked_for(far: Serving) -> None:
    kind, _, text = scraped(far, accept=PROMETHEUS)
    assert kind.startswith(f"{OPEN}; version=1.0.0; charset=utf-8")
    found = {family.name: family for family in open_families(text.decode())}
    assert found.keys() == {metric.name.removesuffix("_total") for metric in METRICS}
    (admitted,) = found["industrial_admitted"].samples
    assert (admitted.name, admitted.value) == ("industrial_admitted_total", 1)


def test_scrape_tells_what_the_command_does(cli: Cli) -> None:
    cli.real()
    cli.post()
    cli.ok("state", "backup", cli.directory / "copy")
    cli.submit("j1")
    with serving() as far:
        _, _, text = scraped(far)
    told = cli.ok("metrics").splitlines()
    # But for the bands: of this server nobody has loaded the board.
    assert text.decode().splitlines() == [
        line for line in told if not line.startswith("price_band_")
    ]
    found = {s.name: s.value for family in families(text.decode()) for s in family.samples}
    assert found["store_last_backup_timestamp_seconds"] == cli.now
    assert found["store_bytes"] == cli.data.stat().st_size
    assert 0 < found["store_map_used_ratio"] * 64 * 2**30 <= found["store_bytes"]


def test_head_tells_the_type_alone(far: Serving) -> None:
    assert scraped(far, "HEAD") == (TEXT, "Accept", b"")


def test_scrape_waits_for_no_writer_and_counts_as_no_change(far: Serving, cli: Cli) -> None:
    before = scraped(far)
    files = cli.files()
    with locked(cli.data.with_name("write.lock")):
        assert scraped(far) == before
    assert cli.files() == files


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_nothing_but_a_look_is_answered(far: Serving, method: str) -> None:
    assert far.ask(method, "/metrics").status == 405
