"""`net reputation show`."""

from tests.support.cli import Cli

pytest_plugins = ("tests.support.cli",)


def test_reputation_shows_the_best_first(cli: Cli) -> None:
    cli.post("--reputation", "3", provider="good")
    cli.post("--reputation", "-4", provider="bad")
    cli.post(provider="new")
    at = cli.now
    assert cli.ok("net", "reputation", "show").splitlines() == [
        f"good\t3\t3\t{cli.document('net', 'reputation', 'show')[0]['epoch']}\t{at}",
        f"new\t0\t0\t{cli.document('net', 'reputation', 'show', 'new')[0]['epoch']}\t{at}",
        f"bad\t-4\t-4\t{cli.document('net', 'reputation', 'show', 'bad')[0]['epoch']}\t{at}",
    ]
    only = cli.document("net", "reputation", "show", "--limit", "1")
    assert [list(row) for row in only] == [["provider", "score", "seed", "epoch", "last_change"]]
    assert cli("net", "reputation", "show", "--limit", "1", "--jsonl").jsonl == only
    error = (
        "error[not_found]: provider nobody has no score\n"
        "hint: a provider gets one with its first offer; see `tb-cli net reputation show`\n"
    )
    assert cli("net", "reputation", "show", "nobody") == (3, "", error)
