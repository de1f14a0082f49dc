"""The laws of scores: each one, broken by hand, is named by the audit."""

import pytest

from compute_market.reputation import due, laws, reputation
from compute_market.store.schema import (
    REPUTATION,
    SCORE_TERMS,
    SCORES_DUE,
    SCORES_DUE_FROM,
    SCORES_RECENT,
)
from compute_market.store.txn import Txn
from tests.support.laws import Case, check_named, edit, laws_in
from tests.support.market import Market


def recent_key(txn: Txn, provider: str) -> bytes:
    return reputation.recent_key(provider, txn.must_read(REPUTATION, provider.encode()))


def due_key(txn: Txn, provider: str) -> bytes:
    record = txn.must_read(REPUTATION, provider.encode())
    key = due.key_of(provider, record, txn.number(SCORE_TERMS))
    assert key is not None
    return key


CASES = (
    Case(
        "every score is found by its last change",
        "scores_recent",
        "prov",
        lambda txn: txn.delete(SCORES_RECENT, recent_key(txn, "prov")),
    ),
    Case(
        "every score is found by its last change",
        "scores_recent",
        "prov",
        lambda txn: edit(txn, REPUTATION, b"prov", changed_ms=1),
    ),
    Case(
        "every score is found by its last change",
        "scores_recent",
        "*",
        lambda txn: txn.put(SCORES_RECENT, bytes(8) + b"nobody"),
    ),
    Case(
        "below zero is bad standing",
        "reputation",
        "prov",
        lambda txn: edit(txn, REPUTATION, b"prov", score=-1),
    ),
    Case(
        "below zero is bad standing",
        "reputation",
        "other",
        lambda txn: edit(txn, REPUTATION, b"other", barred=True),
    ),
    Case(
        "scores have their bounds",
        "reputation",
        "prov",
        lambda txn: edit(txn, REPUTATION, b"prov", score=1001),
    ),
    Case(
        "scores have their bounds",
        "reputation",
        "prov",
        lambda txn: edit(txn, REPUTATION, b"prov", seed=-1001),
    ),
    Case(
        "what time changes of a score falls due",
        "scores_due",
        "prov",
        lambda txn: txn.delete(SCORES_DUE, due_key(txn, "prov")),
    ),
    Case(
        "what time changes of a score falls due",
        "scores_due",
        "*",
        lambda txn: txn.put(SCORES_DUE, bytes(8) + b"nobody"),
    ),
    Case(
        "what time changes of a score falls due",
        "scores_due",
        "prov",
        lambda txn: txn.set_number(SCORE_TERMS, txn.config.score_terms + 1),
    ),
    Case(
        "what time changes of a score falls due",
        "meta",
        SCORES_DUE_FROM,
        lambda txn: txn.set_number(SCORES_DUE_FROM, 2**62),
    ),
)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_audit_names_what_is_falsified(busy: Market, case: Case) -> None:
    check_named(busy, case)


def test_every_law_has_a_case() -> None:
    assert {case.law for case in CASES} == laws_in(laws)
