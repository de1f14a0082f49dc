"""The state root: what gives another, what does not, and what it is bound to."""

from collections.abc import Callable
from pathlib import Path

import pytest
from blake3 import blake3

from compute_market import chain
from compute_market.errors import ConflictError, RefusedError
from compute_market.records import SettleState
from compute_market.settlement import ledger, modes, receipt_chain, settlement, state_root
from compute_market.store.schema import META, SETTLE_STATE
from compute_market.store.txn import Txn
from tests.support.market import MARKET_ID, Market
from tests.support.state import balances


def root(market: Market) -> bytes:
    return market.view(state_root.root)


def test_root_is_the_hash_of_what_it_says(real: Market) -> None:
    """Computed here from the words of its docstring."""
    real.post()
    real.submit()
    real.prove()
    parts = [MARKET_ID, b"real", b"", (1).to_bytes(8, "big")]
    parts.append(real.view(lambda txn: receipt_chain.digest(txn, 1)))
    for account, amount in sorted(
        (f"{name.rpartition(' ')[2]}\0{name.rpartition(' ')[0]}".encode(), amount)
        for name, amount in balances(real).items()
    ):
        parts += [account, amount.to_bytes(16, "big", signed=True)]
    framed = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
    context = "compute_market 2026-11 state root v1"
    assert root(real) == blake3(framed, derive_key_context=context).digest()


def test_root_does_not_depend_on_the_order_of_writes(tmp_path: Path) -> None:
    orders = (("a", "b", "c"), ("c", "a", "b"))
    found = []
    for n, owners in enumerate(orders):
        market = Market(tmp_path / str(n))
        for owner in owners:
            market.deposit(owner, ct=7, it=3)
        found.append(root(market))
        market.store.close()
    assert found[0] == found[1]


def test_root_is_the_same_before_and_after_it_is_written(market: Market) -> None:
    """Within a change, with sums that are kept aside, as for who looks afterwards."""

    def act(txn: Txn) -> bytes:
        ledger.tap(txn, "deposit", "alice", {"CT": 5, "IT": 0}, None)
        return state_root.root(txn)

    market.deposit("bob", ct=1)
    assert market.update(act) == root(market)


Change = Callable[[Market], object]
MOVES: dict[str, Change] = {
    "deposit": lambda market: market.deposit("alice", ct=1),
    "deposit of the other token": lambda market: market.deposit("alice", it=1),
    "deposit to another": lambda market: market.deposit("bob", ct=1),
    "submit": lambda market: market.submit("job-2"),
    "receipt": lambda market: market.prove("job-1"),
    "cancel": lambda market: market.cancel("job-2"),
    "mode": lambda market: market.update(lambda txn: modes.to_dry_run(txn, "r")),
}
LEAVES: dict[str, Change] = {
    "time": lambda market: market.advance(100),
    "tick": lambda market: (market.advance(10), market.opened.tick()),
    "blocks": lambda market: market.opened.advance(9),
    "offer": lambda market: market.post(provider="other"),
    "nothing": lambda market: market.update(lambda txn: None),
    "reopening": lambda market: market.reopen(),
}


@pytest.fixture
def running(real: Market) -> Market:
    """Money moves, and a job is under way."""
    real.post()
    real.submit("job-1")
    return real


def test_each_movement_gives_another_root(running: Market) -> None:
    found = {root(running)}
    for change in MOVES.values():
        change(running)
        found.add(root(running))
    assert len(found) == len(MOVES) + 1


@pytest.mark.parametrize("name", LEAVES)
def test_what_moves_nothing_leaves_the_root(running: Market, name: str) -> None:
    before, height = root(running), running.view(chain.height)
    LEAVES[name](running)
    assert root(running) == before
    if name in ("time", "tick", "blocks"):
        assert running.view(chain.height) > height


def test_mode_its_height_and_the_market_are_bound(market: Market) -> None:
    def with_(change: Callable[[Txn], object]) -> bytes:
        def act(txn: Txn) -> bytes:
            change(txn)
            return state_root.root(txn)

        return market.store.update(act, now_ms=market.now_ms, config=market.config, dry_run=True)

    def mode(*state: object) -> Callable[[Txn], object]:
        return lambda txn: txn.write(SETTLE_STATE, b"mode", SettleState(*state))  # type: ignore[arg-type]

    market.update(lambda txn: None)
    found = [
        with_(lambda txn: None),
        with_(mode("armed", 5)),
        with_(mode("armed", 6)),
        with_(mode("real")),
        with_(lambda txn: txn.put(META, b"market_id", bytes(15) + b"\1")),
        with_(lambda txn: txn.set_number("receipt_seq", 0)),
    ]
    assert len(set(found)) == 5
    assert found[0] == found[-1]
    # Why it is dry_run is a word to the operator.
    assert with_(mode("dry_run", None, "a reason")) == found[0]


def test_check_passes_the_same_state_and_refuses_another(running: Market) -> None:
    expected = root(running)
    running.view(lambda txn: state_root.check(txn, expected))
    running.deposit("alice", ct=1)
    with pytest.raises(ConflictError) as caught:
        running.view(lambda txn: state_root.check(txn, expected))
    error = caught.value
    assert (error.reason, error.exit_code) == ("state_moved", 6)
    assert error.details == {"root": root(running).hex(), "expected": expected.hex()}


def test_moves_are_what_paying_moves(real: Market) -> None:
    """The plan, applied to balances by hand, is the state that real brings about."""
    real.post(fee_pct_ct=40)
    real.submit("job-1")
    real.submit("job-2", lengths=(10, 2**20 + 1))
    real.update(lambda txn: modes.to_dry_run(txn, "r"))
    real.prove("job-1")
    real.prove("job-2", 0, 1)
    planned = real.view(settlement.moves)
    assert [(move["from"], move["token"]) for move in planned] == [
        *(("escrow/job-1", "CT"), ("escrow/job-1", "IT")),
        *(("escrow/job-2", "CT"), ("escrow/job-2", "IT")),
    ]
    expected = balances(real)
    for move in planned:
        for account, sign in ((move["from"], -1), (move["to"], 1)):
            name = f"{account} {move['token']}"
            expected[name] = expected.get(name, 0) + sign * move["amount"]
    real.update(lambda txn: modes.arm(txn, 0))
    real.update(lambda txn: None)
    assert balances(real) == {name: amount for name, amount in expected.items() if amount}
    assert real.view(settlement.moves) == []


@pytest.mark.parametrize("mode", ["armed", "real"])
def test_only_dry_run_can_be_armed(market: Market, mode: str) -> None:
    market.update(lambda txn: modes.check_can_be_armed(txn))
    market.update(lambda txn: modes.arm(txn, 9 if mode == "armed" else 0))
    if mode == "real":
        market.update(lambda txn: None)
    with pytest.raises(RefusedError, match=f"the mode is {mode}, only dry_run can be armed"):
        market.view(lambda txn: modes.check_can_be_armed(txn))
