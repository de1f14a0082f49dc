"""What a shell completes ids with: those of the market, from a short read.

Completion never fails and never prints.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Any

from compute_market.errors import MarketError
from compute_market.jobs import jobs
from compute_market.records import PARAMETER_KEYS
from compute_market.settlement import wallets
from compute_market.store.schema import (
    BIDS,
    BUNDLE_IDS,
    JOBS,
    OFFERS,
    PARTY_JOBS,
    PROPOSALS,
    REPUTATION,
    party_key,
    unpack_u64,
)
from compute_market.store.table import Table
from compute_market.store.txn import Txn
from compute_market.workloads.workloads import BUILT_IN
from tb_cli.frame import key_files
from tb_cli.frame.completion_scripts import SCRIPTS
from tb_cli.frame.session import Session

COMPLETIONS_MAX = 200
LIVE_JOBS_MAX = 10_000  # looked at for a completion
PROPOSALS_MAX = 10_000  # looked at
OFFERS_MAX = 10_000  # looked at for their providers
_BUNDLE_ID_DIGITS = 16
_HEX = frozenset(b"0123456789abcdef")


def completions(kind: str, incomplete: str) -> list[str]:
    """Ids of a kind that begin with a text."""
    if kind == "parameter":
        return [key for key in PARAMETER_KEYS if key.startswith(incomplete)]
    if kind == "topic":
        return _topics(incomplete)
    if kind == "shell":
        return [each for each in SCRIPTS if each.startswith(incomplete)]
    if kind == "workload":
        return [each for each in BUILT_IN if each.startswith(incomplete)]
    if kind == "setting":
        from compute_market.config.rows import SETTINGS

        return [setting.name for setting in SETTINGS if setting.name.startswith(incomplete)]
    prefix = incomplete.encode(errors="surrogateescape")
    try:
        with Session.begin({}) as session:
            if kind == "key":
                names = key_files.names(session.home)
                return _first(name for name in names if name.startswith(incomplete))
            if not session.home.has_market():
                return []
            return sorted(session.view(lambda txn: _first(_FINDERS[kind](txn, prefix))))
    except MarketError:
        return []


def _first(found: Iterable[str]) -> list[str]:
    return list(islice(found, COMPLETIONS_MAX))


def _live_jobs(txn: Txn, prefix: bytes) -> Iterator[str]:
    """There may be millions of ended ones."""
    for job_id in islice(jobs.live_ids(txn), LIVE_JOBS_MAX):
        if job_id.encode().startswith(prefix):
            yield job_id


def _topics(incomplete: str) -> list[str]:
    from tb_cli.frame.topics import TOPICS
    from tb_cli.tree import TREE

    return [each for each in (*TREE.commands, *TOPICS) if each.startswith(incomplete)]


def _parties(side: str, txn: Txn, prefix: bytes) -> Iterator[str]:
    """Those of jobs: of each only the first of its jobs is looked at."""
    start = party_key(side, "", 0)[:-9]
    at = start + prefix
    while True:
        key = next((key for key, _ in txn.scan(PARTY_JOBS, start + prefix, at)), None)
        if key is None:
            return
        party = key[len(start) : -9]
        yield party.decode()
        at = start + party + b"\0" + b"\xff" * 9


def _providers(txn: Txn, prefix: bytes) -> Iterator[str]:
    """Those of offers and of jobs."""
    offered = (OFFERS.decode(key, payload).provider for key, payload in txn.scan(OFFERS))
    found = dict.fromkeys(islice(offered, OFFERS_MAX))
    yield from (each for each in found if each.encode().startswith(prefix))
    yield from (each for each in _parties("provider", txn, prefix) if each not in found)


def _keys(table: Table[Any], txn: Txn, prefix: bytes) -> Iterator[str]:
    return (key.decode() for key, _ in txn.scan(table, prefix))


def _owners(txn: Txn, prefix: bytes) -> Iterator[str]:
    """There may be many, and those that begin with a text stand together."""
    first = prefix.decode(errors="replace")
    if wallets.is_known(txn, first):
        yield first
    for owner in wallets.names(txn, first):
        if not owner.startswith(first):
            return
        yield owner


def _all_parties(txn: Txn, prefix: bytes) -> Iterator[str]:
    """Owners of wallets, and buyers and providers that have none yet."""
    found = dict.fromkeys(islice(_owners(txn, prefix), COMPLETIONS_MAX))
    found |= dict.fromkeys(islice(_parties("buyer", txn, prefix), COMPLETIONS_MAX))
    found |= dict.fromkeys(islice(_providers(txn, prefix), COMPLETIONS_MAX))
    found |= dict.fromkeys(islice(_keys(REPUTATION, txn, prefix), COMPLETIONS_MAX))
    yield from sorted(found)


def _bundles(txn: Txn, prefix: bytes) -> Iterator[str]:
    """Their ids are written in hex."""
    if len(prefix) > _BUNDLE_ID_DIGITS or not _HEX.issuperset(prefix):
        return
    start = bytes.fromhex(prefix.ljust(_BUNDLE_ID_DIGITS, b"0").decode())
    for key, _ in txn.scan(BUNDLE_IDS, start=start):
        if not key.hex().startswith(prefix.decode()):
            return
        yield key.hex()


def _proposals(txn: Txn, prefix: bytes) -> Iterator[str]:
    """Those that are not approved; the newest, as there may be many."""
    for key, payload in islice(txn.scan_back(PROPOSALS), PROPOSALS_MAX):
        text = str(unpack_u64(key))
        if PROPOSALS.decode(key, payload).state == "proposed" and text.startswith(prefix.decode()):
            yield text


_FINDERS: dict[str, Callable[[Txn, bytes], Iterable[str]]] = {
    "job": _live_jobs,
    "any job": partial(_keys, JOBS),
    "owner": _owners,
    "party": _all_parties,
    "offer": partial(_keys, OFFERS),
    "bid": partial(_keys, BIDS),
    "buyer": partial(_parties, "buyer"),
    "provider": _providers,
    "sender": _owners,
    "bundle": _bundles,
    "proposal": _proposals,
}
