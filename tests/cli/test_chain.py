"""`chain status|advance`."""

import pytest

from tests.support.cli import Cli

pytest_plugins = ("tests.support.cli",)


def test_status_of_a_new_market(cli: Cli) -> None:
    cli.ok("state", "init")
    document = cli.document("chain", "status")
    assert list(document) == ["height", "epoch", "market_id", "genesis_ms"]
    assert (document["height"], document["epoch"]) == (0, 0)
    assert document["genesis_ms"] == cli.now_ms
    assert len(bytes.fromhex(document["market_id"])) == 16
    assert cli.ok("chain", "status") == (
        f"height: 0\nepoch: 0\nmarket_id: {document['market_id']}\ngenesis_ms: {cli.now_ms}\n"
    )


def test_blocks_pass_with_time_and_by_hand(cli: Cli) -> None:
    cli.ok("state", "init")
    cli.advance(59)
    assert cli.document("chain", "status")["height"] == 59
    assert cli.ok("chain", "advance", "1") == "height 60, epoch 1\n"
    document = cli.document("chain", "advance", "100")
    assert (document["height"], document["epoch"]) == (160, 2)
    assert document == cli.document("chain", "status") | {"changed": True}


def test_height_never_goes_back(cli: Cli) -> None:
    cli.ok("state", "init")
    cli.advance(100)
    assert cli.ok("chain", "advance", "1") == "height 101, epoch 1\n"
    cli.advance(-50)
    assert cli.document("chain", "status")["height"] == 101
    assert cli.ok("chain", "advance", "1") == "height 102, epoch 1\n"


def test_height_moves_only_by_hand_with_interval_zero(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli.ok("state", "init")
    monkeypatch.setenv("TB_BLOCK_INTERVAL_SECS", "0")
    cli.ok("chain", "advance", "3")
    cli.advance(1000)
    assert cli.document("chain", "status")["height"] == 3


def test_height_has_a_limit(cli: Cli) -> None:
    cli.ok("state", "init")
    cli.ok("chain", "advance", str(2**63 - 1))
    error = f"error[refused]: height would pass {2**63 - 1}\n"
    assert cli("chain", "advance", "1") == (5, "", error)
    assert cli.document("chain", "status")["height"] == 2**63 - 1


@pytest.mark.parametrize("blocks", ["0", "-1", "1.5", str(2**63)])
def test_advance_by_no_number_of_blocks_is_usage(cli: Cli, blocks: str) -> None:
    done = cli("chain", "advance", "--", blocks)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error[usage]: N: ")
