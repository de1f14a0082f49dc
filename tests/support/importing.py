"""Files of another market's receipts, and their import."""

from collections.abc import Callable, Sequence
from typing import Any

from compute_market.market import Market as Opened
from compute_market.receipt_records import Receipt
from compute_market.settlement import imports, receipt_files
from compute_market.settlement.imports import Taken
from compute_market.settlement.receipt_chain import GENESIS
from compute_market.settlement.receipt_files import Exported
from compute_market.signatures.keys import Key
from compute_market.store.schema import IMPORTS
from compute_market.store.txn import Txn
from tests.support.market import Market
from tests.support.receipt_file import KEY, chained, receipt, signed

THEIRS = b"their market\0\0\0\0"
OTHERS = b"another market\0\0"
PRICE = 5  # of a receipt of `receipt_file`

Update = Callable[[Callable[[Txn], Taken]], Taken]


def links(*receipts: Receipt) -> list[Exported]:
    """Receipts from the first of a market on, with their links."""
    return list(chained(receipts))


def three(**fields: Any) -> list[Exported]:
    """Receipts 1 to 3 of their market, `buyer` owing `prov` 5 CT for each."""
    return links(*(receipt(seq, **fields) for seq in (1, 2, 3)))


def file_of(
    entries: Sequence[Exported], key: Key = KEY, market_id: bytes = THEIRS, after: bytes = GENESIS
) -> list[bytes]:
    return signed(entries, key, market_id, after)


def trust(market: Market, *keys: Key) -> None:
    market.configure(net_trusted=tuple(key.key_id.hex() for key in keys))


def import_(
    market: Market | Opened,
    lines: list[bytes],
    *,
    from_link: bytes | None = None,
    update: Update | None = None,
) -> Taken:
    """Import a file as the command does."""
    file = receipt_files.verify(lines, from_link=from_link)
    entries = receipt_files.entries(lines)
    return imports.take_all(update or market.update, file, entries, from_link=from_link)


def import_of(market: Market, entries: Sequence[Exported], key: Key = KEY) -> Taken:
    return import_(market, file_of(entries, key))


def statuses(market: Market) -> dict[int, str]:
    """What has become of the receipts of their market, by number."""

    def look(txn: Txn) -> dict[int, str]:
        return {each.receipt.seq: each.status for each in txn.records(IMPORTS, THEIRS)}

    return market.view(look)
