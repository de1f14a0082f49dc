"""The market on one page: where the money is."""

from compute_market import overview
from compute_market.settlement import ledger
from tests.support.market import Market


def test_tokens_are_where_the_accounts_say(busy: Market) -> None:
    found = busy.view(overview.balances)
    for token in ledger.TOKENS:
        accounts = busy.view(lambda txn, token=token: ledger.balances(txn, token))

        def held(kind: str, of: dict[str, int] = accounts) -> int:
            return sum(amount for name, amount in of.items() if name.startswith(kind))

        assert found[token.lower()] == {
            "in_circulation": -accounts[ledger.SUPPLY],
            "in_wallets": held("wallet/"),
            "escrowed": held("escrow/"),
            "bonded": held("bond/"),
            "sealed": held("bid/"),
            "burned": accounts.get(ledger.BURNED, 0),
        }
    assert all(found["ct"].values())
