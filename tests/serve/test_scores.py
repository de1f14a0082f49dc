"""What a market makes of scores that another one tells."""

import pytest

from compute_market.reputation import reputation
from compute_market.reputation.gossip import METHOD as GOSSIP
from tests.support.cli import Cli
from tests.support.peer import logged, told
from tests.support.receipt_file import OTHER_KEY
from tests.support.serving import Serving, serving

pytest_plugins = ("tests.support.cli", "tests.support.peer")
pytestmark = pytest.mark.usefixtures("trusting")


def counts(applied: int, ignored: int, ahead: int) -> dict[str, int]:
    return {"applied": applied, "ignored": ignored, "from_the_future": ahead}


def test_scores_are_taken_when_they_are_news(cli: Cli, far: Serving) -> None:
    news = told(("acme", -5, cli.now), ("bolt", 7, cli.now))
    assert far.call(GOSSIP, news)["result"] == counts(2, 0, 0)
    assert far.call(GOSSIP, news)["result"] == counts(0, 2, 0)
    older = told(("acme", 900, cli.now - 1))
    assert far.call(GOSSIP, older)["result"] == counts(0, 1, 0)
    assert far.view(lambda txn: reputation.score(txn, "acme")) == -5


def test_scores_of_the_future_and_out_of_bounds_are_ignored_and_told(
    cli: Cli, capsys: pytest.CaptureFixture[str]
) -> None:
    lies = told(("acme", 5, cli.now + 1000), ("bolt", 5000, cli.now), ("cog", 1, cli.now))
    with serving() as far:
        assert far.call(GOSSIP, lies)["result"] == counts(1, 2, 1)
    (line,) = logged(capsys.readouterr().err)
    assert line["error"] == "3 scores: applied 1, ignored 2 (1 from the future, 1 no score)"


def test_scores_bar_offers_at_once(cli: Cli) -> None:
    cli.post()
    with serving() as far:
        far.call(GOSSIP, told(("prov", -5, cli.now + 1)))
    done = cli(*cli.job_arguments("j1"), "--json")
    assert (done.code, done.error["reason"]) == (5, "reputation_failure")


def changed() -> dict[str, str]:
    return {"message": told(("acme", 5, 1))["message"].replace("acme", "acne")}


UNBELIEVED = {
    "another key": (told(("acme", 5, 1), key=OTHER_KEY), -32000, "untrusted_key"),
    "changed": (changed(), -32000, "bad_signature"),
    "no message": ({"message": "nonsense"}, -32000, "malformed"),
    "a long line": ({"message": '{"a":1}' * 100_000}, -32000, "malformed"),
    "nested too deep": ({"message": '{"x":' + "[" * 2000 + "\n"}, -32000, "malformed"),
    "a number": ({"message": 5}, -32602, None),
    "nothing": ({}, -32602, None),
    "none": (None, -32602, None),
    "no text": ({"message": "\ud800"}, -32700, None),
    "a list": (["x"], -32602, None),
}


@pytest.mark.parametrize(("params", "code", "reason"), UNBELIEVED.values(), ids=UNBELIEVED)
def test_scores_that_are_not_believed_change_nothing(
    far: Serving, params: object, code: int, reason: str | None
) -> None:
    error = far.call(GOSSIP, params)["error"]
    assert (error["code"], error.get("data", {}).get("reason")) == (code, reason)
    assert far.view(lambda txn: list(reputation.entries(txn))) == []


def test_market_that_has_opted_out_listens_to_nobody(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TB_REPUTATION_GOSSIP", "false")
    with serving() as far:
        error = far.call(GOSSIP, told(("acme", 5, cli.now)))["error"]
    assert error["data"]["reason"] == "gossip_off"
