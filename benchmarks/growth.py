"""Claim: a look costs the same with 1 000 000 live jobs as with 10 000.

Peer: the same look at a market a hundredth of the size, in the same rounds. A look is a whole
process of `tb-cli`; with `--library` it is a call of the library in this process, on a market that
is open. Most jobs are queued, every twentieth has no offer and waits for one, and the more jobs
there are, the more buyers and providers there are. Nothing is cached between two looks but what the
kernel keeps of the file.
"""

import statistics
import sys
from collections.abc import Callable, Iterator
from itertools import chain, islice
from multiprocessing import Process
from pathlib import Path
from typing import Any

import measure

from compute_market import exposition
from compute_market.engine import Engine
from compute_market.jobs import demand, documents, jobs
from compute_market.jobs.submit import post_offer, submit
from compute_market.records import Refused, Slice, replace
from compute_market.requests import CapabilityRequest
from compute_market.scheduler import outcomes, queue
from compute_market.settlement import escrow, ledger
from compute_market.store.txn import Txn

BOUND = 1.3
CHUNK = 20_000
# As many parties as a scrape shows, in the smaller market too: what is printed is as long.
PARTIES_MIN = 1_000
LIMIT = 10
CONFIG = replace(measure.OPEN_HANDED, slots=64, initial_capacity=10**9, fair_share_cap_ppm=10**6)

Look = Callable[[Txn], object]


def main() -> None:
    parser = measure.arguments(__doc__)
    parser.add_argument("--few", type=int, help="live jobs of the smaller market")
    parser.add_argument("--many", type=int, help="live jobs of the larger one")
    parser.add_argument("--library", action="store_true", help="calls instead of processes")
    chosen = parser.parse_args()
    few = chosen.few or (2_000 if chosen.quick else 10_000)
    many = chosen.many or (50_000 if chosen.quick else 1_000_000)
    rounds = (5 if chosen.quick else 15) * (3 if chosen.library else 1)
    with (
        measure.scratch(on_disk=False, gib=8e-6 * few) as small,
        measure.scratch(on_disk=False, gib=8e-6 * many) as large,
    ):
        homes = {few: small, many: large}
        for count, home in homes.items():
            build(home, count)
        times = measure.interleave(
            {
                f"{look} {count}": action
                for count, home in homes.items()
                for look, action in (calls if chosen.library else processes)(home, count).items()
            },
            rounds,
        )
    print(f"{'median ms of a look':26} {few:>10} {many:>10}")
    looks = list(dict.fromkeys(name.rpartition(" ")[0] for name in times))
    for look in looks:
        medians = (1000 * statistics.median(times[f"{look} {count}"]) for count in homes)
        print("{:26} {:10.3f} {:10.3f}".format(look, *medians))
    for look in looks:
        level = measure.ratio(times[f"{look} {many}"], times[f"{look} {few}"])
        measure.claim(f"{look} with {many} live jobs", level, BOUND, f"× with {few}")
    measure.finish()


def processes(home: Path, count: int) -> dict[str, measure.Action]:
    """Each look as a command."""
    tool = Path(sys.executable).parent / "tb-cli"
    env = measure.environment(home)
    lines = {
        "status": ("compute", "status", job_id(count // 2)),
        "stats": ("compute", "stats"),
        "compute-market stats": ("compute-market", "stats"),
        "metrics": ("metrics",),
        "wallet balance": ("wallet", "balance", buyer(1)),
        f"queue --limit {LIMIT}": ("compute", "queue", "--limit", str(LIMIT)),
        f"list --limit {LIMIT}": ("compute", "list", "--limit", str(LIMIT)),
    }

    def act(words: tuple[str, ...]) -> measure.Action:
        return lambda: measure.command([tool, *words], env)

    return {look: act(words) for look, words in lines.items()}


def calls(home: Path, count: int) -> dict[str, measure.Action]:
    """The same looks through the library; the market stays open until the process ends."""
    market = measure.open_market(home, CONFIG)
    looks: dict[str, Look] = {
        "status": lambda txn: documents.job_document(txn, jobs.get(txn, job_id(count // 2))),
        "stats": outcomes.statistics,
        "compute-market stats": demand.document,
        "metrics": exposition.render,
        "wallet balance": lambda txn: escrow.balance_document(txn, buyer(1)),
        f"queue --limit {LIMIT}": queued,
        f"list --limit {LIMIT}": lambda txn: documents.job_page(txn, None, LIMIT),
    }

    def act(look: Look) -> measure.Action:
        return lambda: market.view(look)

    return {name: act(look) for name, look in looks.items()}


def queued(txn: Txn) -> list[dict[str, Any]]:
    """The beginning of the queue, and behind it what has no offer."""
    waiting: Iterator[str] = chain(queue.in_order(txn), queue.pending_ids(txn))
    found = []
    for place, name in enumerate(islice(waiting, LIMIT), 1):
        job = jobs.get(txn, name)
        found.append(queue.document(txn, job, place, queue.held_by(txn, job)))
    return found


def build(home: Path, count: int) -> None:
    """Fill a home with live jobs, in a process of its own: its memory is not to be measured."""
    filler = Process(target=fill, args=(home, count))
    filler.start()
    filler.join()
    assert filler.exitcode == 0


def fill(home: Path, count: int) -> None:
    buyers, providers = max(PARTIES_MIN, count // 10), max(PARTIES_MIN, count // 100)
    with measure.open_market(home, CONFIG) as market:
        in_chunks(market, buyers, lambda txn, number: pay(txn, buyer(number), 10_000))
        in_chunks(market, providers, lambda txn, number: offer(txn, number, 2 * count // providers))
        in_chunks(market, count, lambda txn, number: order(txn, number, buyers))


def in_chunks(market: Engine, count: int, act: Callable[[Txn, int], None]) -> None:
    def each(txn: Txn, numbers: range) -> None:
        for number in numbers:
            act(txn, number)

    for start in range(0, count, CHUNK):
        numbers = range(start, min(start + CHUNK, count))
        market.update(lambda txn, numbers=numbers: each(txn, numbers))


def pay(txn: Txn, owner: str, amount: int) -> None:
    ledger.tap(txn, "deposit", owner, {"CT": amount, "IT": amount}, None)


def offer(txn: Txn, number: int, units: int) -> None:
    provider = f"prov-{number:07d}"
    pay(txn, provider, 2 * units)
    terms = {"units": units, "price_per_unit": 5 + number % 7, "fee_pct_ct": 50}
    post_offer(txn, measure.offer_request(provider, **terms))


def order(txn: Txn, number: int, buyers: int) -> None:
    # Nobody offers that GPU.
    need = CapabilityRequest(gpu="none") if number % 20 == 0 else CapabilityRequest()
    request = measure.job_request(
        job_id(number),
        buyer=buyer(number % buyers),
        capability=need,
        priority=("low", "normal", "high")[number % 3],
        deadline_secs=2_000_000,
    )
    found = submit(txn, request, [Slice("/slices/a", 10, bytes(32))], wait=True)
    if isinstance(found, Refused):
        raise SystemExit(f"{request.job_id}: {found.message}")


def job_id(number: int) -> str:
    return f"job-{number:07d}"


def buyer(number: int) -> str:
    return f"buyer-{number:07d}"


if __name__ == "__main__":
    main()
