"""A home as an older release left it."""

import pytest

from compute_market import upgrades
from compute_market.store import schema
from compute_market.store.txn import Txn
from tests.support.cli import Cli


def aged(cli: Cli, patch: pytest.MonkeyPatch) -> list[int]:
    """Take a home back to the schema before this one; what it is brought up from each time that
    this process does so."""

    def age(txn: Txn) -> None:
        for table in (schema.SUBMITTED, schema.PARTY_JOBS):
            txn.clear(table)
        txn.put(schema.META, b"schema", bytes((7,)))

    cli.update(age)
    cli.audited = False  # By a store that knows no steps.
    upgrade, found = upgrades.bring_up_to_date, []

    def counted(txn: Txn, stored: int) -> None:
        found.append(stored)
        upgrade(txn, stored)

    patch.setattr(upgrades, "bring_up_to_date", counted)
    return found
