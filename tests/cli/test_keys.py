"""`--key`: what creates or counts without an id of its own happens once under a key."""

from typing import Any

import pytest

from tests.support.cli import Cli

pytest_plugins = ("tests.support.cli",)

OFFER = ("compute", "offer", "post", "--provider", "p", "--units", "5", "--price", "3")
ADJUST = ("net", "reputation", "adjust", "p", "--reason", "r")
CAPACITY = ("compute-market", "capacity", "record")

# A verb with a key, the same with something else, the field that differs, and what it changes.
KEYED: dict[str, tuple[tuple[str, ...], tuple[str, ...], str, tuple[str, ...], str]] = {
    "offer": (OFFER, (*OFFER, "--bond", "2"), "provider_bond", ("compute", "offer", "list"), ""),
    "blocks": (
        ("chain", "advance", "7"),
        ("chain", "advance", "8"),
        "blocks",
        ("chain", "status"),
        "height",
    ),
    "capacity": (
        (*CAPACITY, "40"),
        (*CAPACITY, "41"),
        "units_per_second",
        ("compute-market", "capacity", "show"),
        "samples",
    ),
    "score": (
        (*ADJUST, "7"),
        (*ADJUST, "8"),
        "delta",
        ("net", "reputation", "show", "p", "--history"),
        "",
    ),
    "deposit": (
        ("wallet", "deposit", "a", "--ct", "1"),
        ("wallet", "deposit", "a", "--ct", "2"),
        "ct",
        ("wallet", "balance", "a"),
        "ct",
    ),
}


def shown(cli: Cli, look: tuple[str, ...], field: str) -> Any:
    found = cli.document(*look)
    return found[field] if field else found


@pytest.mark.parametrize("name", KEYED)
def test_same_call_with_a_key_happens_once(cli: Cli, name: str) -> None:
    call, other, field, look, what = KEYED[name]
    cli.ok(*OFFER)
    first = cli.document(*call, "--key", "k1")
    assert first["changed"] is True
    after = shown(cli, look, what)
    again = cli.document(*call, "--key", "k1")
    assert again["changed"] is False
    assert shown(cli, look, what) == after
    done = cli(*other, "--key", "k1", "--json")
    assert (done.code, done.error["error"], done.error["field"]) == (6, "conflict", field)
    assert shown(cli, look, what) == after
    assert cli.document(*call, "--key", "k2")["changed"] is True
    assert shown(cli, look, what) != after


@pytest.mark.parametrize("name", KEYED)
@pytest.mark.parametrize("other", KEYED)
def test_key_of_another_verb_is_a_conflict(cli: Cli, name: str, other: str) -> None:
    cli.ok(*OFFER)
    cli.ok(*KEYED[name][0], "--key", "k1")
    done = cli(*KEYED[other][0], "--key", "k1", "--json")
    if name != other:
        assert (done.code, done.error["field"]) == (6, "event")


def test_offer_under_a_key_is_the_one_it_was(cli: Cli) -> None:
    assert cli.ok(*OFFER, "--key", "k1", due="").endswith("posted offer o-1\n")
    cli.ok("compute", "offer", "withdraw", "o-1")
    assert cli.ok(*OFFER, "--key", "k1") == "offer o-1 exists, unchanged: withdrawn\n"
    done = cli(*OFFER, "--key", "k1", "--offer-id", "mine", "--json")
    assert (done.code, done.error["field"]) == (6, "offer_id")


def test_key_is_that_of_one_offer(cli: Cli) -> None:
    line = '{"provider": "p", "units": 1, "price_per_unit": 1}\n'
    done = cli("compute", "offer", "post", "-", "--key", "k1", stdin=line * 2)
    assert done.code != 0
    assert "--key is that of one offer" in done.out + done.err


@pytest.mark.parametrize("name", KEYED)
def test_key_that_is_no_id_is_usage(cli: Cli, name: str) -> None:
    cli.ok("state", "init")
    assert cli(*KEYED[name][0], "--key", "a b").code == 2
