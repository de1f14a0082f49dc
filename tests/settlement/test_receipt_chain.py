"""The chain of the receipts: each link binds the one before, and damage shows."""

from collections.abc import Iterator
from typing import Any

import pytest
from blake3 import blake3

from compute_market import audit
from compute_market.laws import Violation
from compute_market.settlement import receipt_chain, receipts
from compute_market.store.schema import RECEIPT_CHAIN, RECEIPTS, pack_u64
from compute_market.store.table import Table, encode
from compute_market.store.txn import Txn
from tests.support.market import Market
from tests.support.state import put_payload, three_receipts


def test_chain_binds_seq_previous_link_and_bytes(market: Market) -> None:
    three_receipts(market)

    def recomputed(txn: Txn) -> list[bytes]:
        digest, found = bytes(32), []
        for seq, (_, value) in enumerate(txn.scan(RECEIPT_CHAIN), 1):
            key = receipts.key_of(f"job-{seq - 1}", "buyer", "prov", 5, 1)
            assert key in value
            message = pack_u64(seq) + digest + encode(receipts.find(txn, key))
            digest = blake3(message, derive_key_context=receipt_chain.CONTEXT).digest()
            found.append(digest)
        return found

    stored = market.view(lambda txn: [link.digest for link in txn.records(RECEIPT_CHAIN)])
    assert market.view(recomputed) == stored
    assert len(set(stored)) == 3


@pytest.mark.parametrize("table", [RECEIPTS, RECEIPT_CHAIN], ids=["receipts", "receipt_chain"])
@pytest.mark.parametrize("bit", [0x01, 0x80])
def test_audit_finds_any_flipped_byte_under_a_fitting_checksum(
    market: Market, table: Table[Any], bit: int
) -> None:
    three_receipts(market)

    def found(entry_key: bytes, key: bytes, value: bytes) -> bool:
        def action(txn: Txn) -> bool:
            txn.delete(table, entry_key)
            put_payload(txn, table, key, value)
            return bool(list(audit.check(txn)))

        return market.store.update(action, now_ms=market.now_ms, config=market.config, dry_run=True)

    def flipped(data: bytes) -> Iterator[bytes]:
        for i in range(len(data)):
            yield data[:i] + bytes([data[i] ^ bit]) + data[i + 1 :]

    for key, value in market.view(lambda txn: list(txn.scan(table))):
        assert not found(key, key, value)
        for n, changed in enumerate(flipped(value)):
            assert found(key, key, changed), f"byte {n} of the value of {key.hex()}"
        for n, changed in enumerate(flipped(key)):
            assert found(key, changed, value), f"byte {n} of the key {key.hex()}"


def test_audit_finds_a_receipt_that_was_dropped(market: Market) -> None:
    three_receipts(market)

    def dropped(seq: int, links: bool) -> list[Violation]:
        def action(txn: Txn) -> list[Violation]:
            txn.delete(RECEIPTS, receipts.key_of(f"job-{seq - 1}", "buyer", "prov", 5, 1))
            if links:
                txn.delete(RECEIPT_CHAIN, pack_u64(seq))
            return list(audit.check(txn))

        return market.store.update(action, now_ms=market.now_ms, config=market.config, dry_run=True)

    for seq in (1, 2, 3):
        for links in (False, True):
            assert dropped(seq, links), f"receipt {seq}"
