"""A market in which everything has happened, as its pages show it, with texts that mean harm."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from compute_market import records
from compute_market.admission import mempool
from compute_market.courier import courier
from compute_market.courier.courier import Attempted
from compute_market.jobs.submit import Submitted, post_offer, submit
from compute_market.offers import standing
from compute_market.settlement import ledger, modes
from compute_market.store.txn import Txn
from tb_cli.frame import price_board
from tb_cli.network.pages.documents import Asked
from tb_cli.network.pages.routes import PAGES as ROUTES
from tb_cli.network.pages.routes import Page
from tests.support.bundles import HOLDER, bundle, ids
from tests.support.cli import Cli, operating
from tests.support.laws import busy_market
from tests.support.market import job_request, offer_request, slice_of
from tests.support.serving import Serving, serving

# What no page may take for its own words: elements, the ends of attributes, templates, and a mark
# that turns the order of text round.
HARM = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }}\u202egnp"
# Ids with all that ids may have.
ODD_BUYER, ODD_JOB = "carol:team@example.org+1", "_job.with:all@of+it-1"

# The longest ids there may be.
LONG_JOB, LONG_OFFER, LONG_PARTY = "J" * 128, "O" * 128, "P" * 64

# Every page, with something on it.
PAGES = {
    "overview": "/",
    "jobs": "/jobs",
    "all jobs": "/jobs?list=all",
    "job that runs": "/jobs/handed",
    "job that waits": "/jobs/wait-low",
    "job without an offer": "/jobs/harm",
    "job that ended": "/jobs/moved",
    "offers": "/offers",
    "offer": "/offers/main",
    "parties": "/parties",
    "buyer": "/parties/buyer",
    "provider": "/parties/other",
    "prices": "/prices",
    "settlement": "/settlement",
    "courier": "/courier",
    "events": "/events",
}


# What every page shows, whatever it is of.
BASE = {"now_ms": 1_800_000_000_000, "timely": True, "market_id": "0" * 32}


def routed(path: str) -> tuple[Page, Asked]:
    """The page under a path, and what that asks of it."""
    place, _, query = path.partition("?")
    _, kind, *name = place.split("/")
    template = f"/{kind}/{{id}}" if name else place
    return ROUTES[template], Asked(name[0] if name else "", all=query == "list=all")


@contextmanager
def operated(directory: Path) -> Iterator[Cli]:
    """A home of its own, and a clock that stands still, for as long as this lasts."""
    with pytest.MonkeyPatch.context() as patch, operating(directory, patch) as operator:
        operator.home.mkdir(mode=0o700)
        yield operator


@contextmanager
def busy_server(directory: Path) -> Iterator[Serving]:
    """The market, served."""
    with operated(directory) as operator:
        busy = busy_market(operator.home / "market")
        busy.store.close()
        operator.now_ms = busy.now_ms
        (operator.home / "config.toml").write_text("[scheduler]\nslots = 4\n")
        with serving() as far:
            price_board.load(far.session)
            market = far.session.market
            market.asked = records.Asked(HARM, "here", 1, HARM)
            market.update(_harm)
            for number in range(3):
                submitted(far, f"priced-{number}", buyer=ODD_BUYER, max_price_per_unit=50)
            submitted(far, ODD_JOB, buyer=ODD_BUYER)
            submitted(far, "harm", wait=True, capability={"gpu": HARM.partition("\u202e")[0]})
            submitted(far, LONG_JOB, buyer=LONG_PARTY)
            yield far


def submitted(far: Serving, job_id: str, **fields: Any) -> None:
    """Submit a job beside the server."""
    wait = fields.pop("wait", False)
    inputs = [slice_of(2_000_000)]
    request = job_request(job_id, inputs, **fields)
    verdict = far.session.update(lambda txn: submit(txn, request, inputs, wait=wait))
    assert isinstance(verdict, Submitted), verdict


def _harm(txn: Txn) -> None:
    """What others wrote into the market, what went wrong, and what consumers paid."""
    for number in range(20):
        mempool.submit(txn, f"sender-{number}", 10 + 7 * number, 100)
    post_offer(txn, offer_request("flaky", offer_id="barred"))
    post_offer(txn, offer_request(LONG_PARTY, offer_id=LONG_OFFER, price_per_unit=9 * 10**17))
    ledger.tap(txn, "deposit", LONG_PARTY, {"CT": 8 * 10**18, "IT": 9 * 10**18}, "large")
    standing.record_outcome(txn, "flaky", -1)
    sent = courier.send(txn, bundle("other", dest=f"exec:{HARM}"), ids())
    courier.claim(txn, HOLDER, None, 100)
    courier.record(txn, [Attempted(sent.seq, "failed", 2, 2, HARM)], HOLDER)
    modes.arm(txn, 9)
    modes.to_dry_run(txn, HARM)
