"""A table in memory gives what LMDB would, however its entries come and go."""

from random import Random

import pytest

from compute_market.records import Posting
from compute_market.store import resident
from compute_market.store.resident import Resident
from compute_market.store.schema import POSTINGS
from compute_market.store.table import encode


def search(held: Resident, entries: dict[bytes, bytes], draws: Random) -> None:
    """What is asked of the order, against a sorted list."""
    keys = sorted(entries)
    start = draws.randbytes(2)
    prefix = draws.choice((b"", start[:1]))
    wanted = [key for key in keys if key >= max(start, prefix) and key.startswith(prefix)]
    chosen = [(key, entries[key]) for key in wanted]
    assert held.collect(3, prefix, max(start, prefix)) == chosen[:3]
    assert list(held.scan(prefix, max(start, prefix))) == chosen
    assert held.first(prefix, max(start, prefix)) == (chosen[0] if chosen else None)
    below = [key for key in keys if key < start]
    behind = [key for key in keys if key >= start]
    assert held.beside(start) == (below[-1] if below else None, behind[0] if behind else None)
    assert [key for key, _ in held.scan_back(start)] == below[::-1]


@pytest.mark.parametrize("seldom", [1, 10, 1_000])
def test_order_is_known_however_seldom_it_is_asked_for(
    seldom: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where so many have come and gone meanwhile that it was forgotten."""
    monkeypatch.setattr(resident, "_UNASKED_MAX", 8)
    draws = Random(seldom)
    held, entries = Resident(has_records=False), dict[bytes, bytes]()
    forgotten = 0
    for number in range(min(4_000, 800 * seldom)):
        key, value = draws.randbytes(2), draws.randbytes(1)
        if draws.random() < 0.6:
            held.put(key, value)
            entries[key] = value
        else:
            gone = draws.choice((key, *list(entries)[:1]))
            assert held.delete(gone) is (entries.pop(gone, None) is not None)
        if number % seldom == 0:
            forgotten += held.keys is None
            search(held, entries, draws)
    assert forgotten > (1 if seldom > 1 else 0)
    held.clear()
    assert held.first(b"", b"") is None


def test_records_are_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    posting = Posting(1, 0, "CT", 5, "supply", "wallet/a", "deposit", "")
    held = Resident(has_records=True)
    held.put(b"a", encode(posting))
    held.put(b"b", posting)
    found = held.records(POSTINGS, 5, b"", b"")
    assert found == [(b"a", posting), (b"b", posting)]
    again = held.records(POSTINGS, 5, b"", b"")
    assert [each is other for (_, each), (_, other) in zip(found, again, strict=True)] == [True] * 2
