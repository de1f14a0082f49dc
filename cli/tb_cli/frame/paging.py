"""Reading page by page: short transactions, flat memory."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from typing import Final, TypeVar

from compute_market.store.schema import SCHEMA_VERSION
from compute_market.store.txn import Txn
from tb_cli.frame.session import Session

T = TypeVar("T")
K = TypeVar("K")
# Finds a page behind a key, of so many records, and the key to go on after, or None.
Fetch = Callable[[Txn, K, int], tuple[list[T], K | None]]

PAGE: Final = 1000  # records that a listing reads in one transaction
# Pages of a listing after which the data file is mapped anew.
_PAGES_MAPPED: Final = 8


def pages(session: Session, fetch: Fetch[K, T], start: K) -> Iterator[list[T]]:
    """What `fetch` finds, each page in a transaction of its own.

    A store of an older schema is brought up to date by every look, for that look alone: it is
    looked at once, for all pages.
    """
    if session.market.store.schema < SCHEMA_VERSION:
        yield session.view(partial(_all, fetch, start))
        return
    after = start
    for number in count(1):
        found, last = session.view(partial(_one, fetch, after))
        yield found
        if last is None:
            return
        after = last
        if number % _PAGES_MAPPED == 0:
            session.let_go()


def _one(fetch: Fetch[K, T], after: K, txn: Txn) -> tuple[list[T], K | None]:
    return fetch(txn, after, PAGE)


def _all(fetch: Fetch[K, T], start: K, txn: Txn) -> list[T]:
    found, after = fetch(txn, start, PAGE)
    while after is not None:
        more, after = fetch(txn, after, PAGE)
        found += more
    return found
