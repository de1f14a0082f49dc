"""Claim: a full consumer pool makes neither an admission nor a scrape take longer than 1.2 times.

What the widest price board adds to a scrape is told beside: its window is sorted once a lane.

Peer: the same market with an empty pool, whose fees were paid all the same, asked in turn. The
time is that of the transaction, without its durable commit: each is rolled back.
"""

import random
from functools import partial
from pathlib import Path
from statistics import median

import measure

from compute_market import exposition
from compute_market.admission import mempool
from compute_market.config.settings import DEFAULTS
from compute_market.engine import Engine
from compute_market.jobs.submit import Submitted, post_offer, submit
from compute_market.price_records import Board
from compute_market.records import Slice, replace
from compute_market.store.txn import Txn

RATIO_BOUND = 1.2
WIDEST = 10_000  # the most prices of a lane that a board may have
FULL = DEFAULTS.mempool_lane_limit
BATCH = 20
# Blocks pass by hand alone: what one takes is no part of an admission.
CONFIG = replace(
    DEFAULTS,
    block_interval_secs=0,
    comfort_max_age_p95_ms=0,
    fair_share_cap_ppm=1_000_000,
    mempool_sender_limit=FULL,
    initial_capacity=1_000_000,
)


def main() -> None:
    chosen = measure.arguments(__doc__).parse_args()
    rounds = 30 if chosen.quick else 200
    with measure.scratch(on_disk=False) as directory:
        compare(directory, rounds)
    measure.finish()


def compare(directory: Path, rounds: int) -> None:
    with (
        measure.open_market(directory / "empty", CONFIG) as empty,
        measure.open_market(directory / "full", CONFIG) as full,
    ):
        for market, size in ((empty, mempool.FEES_KEPT), (full, FULL)):
            market.update(lambda txn, size=size: fill(txn, size))
        empty.update(lambda txn: mempool.drain(txn, 1))
        sizes = [market.view(mempool.present).size for market in (empty, full)]
        print(f"transactions in the pools: {sizes[0]} and {sizes[1]}")
        for name, act in (("admission", admit), ("scrape", scrape), ("transaction", send)):
            times = measure.interleave(
                {
                    "empty": lambda act=act: act(empty),
                    "full": lambda act=act: act(full),
                },
                rounds,
            )
            found = measure.ratio(times["full"], times["empty"])
            if name == "transaction":
                print(f"a transaction that a full pool evicts another for: {found:.2f} ×")
            else:
                measure.claim(name, found, RATIO_BOUND, "× with an empty pool")
        show_board(empty, rounds)


def show_board(market: Engine, rounds: int) -> None:
    """What a scrape takes with a price board, against the same one without."""
    generator = random.Random(1)
    for prices in (DEFAULTS.price_board_window, WIDEST):
        found = tuple(generator.randrange(1_000_000) for _ in range(prices))

        market.config = replace(CONFIG, price_board_window=prices)
        boards = {"none": Board(), "full": Board("success", "", 0, found, found)}
        times = measure.interleave(
            {name: partial(scraped, market, board) for name, board in boards.items()}, rounds
        )
        more_ms = (median(times["full"]) - median(times["none"])) * 1000
        print(f"a scrape with 2 × {prices} prices on the board: {more_ms:.2f} ms more")


def fill(txn: Txn, size: int) -> None:
    post_offer(txn, measure.offer_request(units=1_000_000))
    for number in range(size):
        mempool.submit(txn, f"sender-{number % 100}", 10 + number % 1_000, 250)


def admit(market: Engine) -> None:
    """Some jobs, each admitted; the transaction is rolled back."""

    def act(txn: Txn) -> None:
        inputs = [Slice("/slices/a", 10, bytes(32))]
        for number in range(BATCH):
            found = submit(txn, measure.job_request(f"job-{number}"), inputs)
            assert isinstance(found, Submitted)

    market.update(act, dry_run=True)


def scrape(market: Engine) -> None:
    market.view(exposition.render)


def scraped(market: Engine, board: Board) -> None:
    market.board = board
    scrape(market)


def send(market: Engine) -> None:
    market.update(lambda txn: mempool.submit(txn, "one", 5_000, 250), dry_run=True)


if __name__ == "__main__":
    main()
