"""`--json-amounts string`: no amount of any document is a number that a reader could round."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from msgspec.structs import fields

from compute_market.amount_text import FIELDS, as_text
from compute_market.requests import Amount, CapabilityRequest, JobRequest, OfferRequest
from tests.support.cli import Cli, Done
from tests.support.verbs import TRUST, VERBS, Path_, arguments_of

pytest_plugins = ("tests.support.cli",)

# The first number that a float does not hold exactly is one more.
EXACT = 2**53
HUGE = EXACT + 1
CAPABILITY = {
    "cpu_cores": HUGE,
    "gpu": "A100",
    "gpu_count": HUGE,
    "gpu_memory_mb": HUGE,
    "accelerator": "TPU",
    "accelerator_memory_mb": HUGE,
}
AS_TEXT = ("--json-amounts", "string")
# They print no JSON of their own, whatever they are asked for, or take long.
SILENT = {
    *(("demo",), ("batch",), ("serve", "run"), ("serve", "token"), ("metrics",)),
    *(
        ("bid", "export"),
        ("bid", "reveal"),
        ("compute", "calibrate"),
        ("net", "reputation", "sync"),
    ),
}
# Times and numbers in them differ between two runs.
OTHER_EACH_TIME = {
    *(("compute", "courier", "send"), ("compute-market", "simulate"), ("key", "new")),
    ("bid", "commit"),
}
# What has nothing to act on here prints an error, which has amounts as well; by exit code.
REFUSED = {
    **dict.fromkeys(("compute preempt", "bid import", "bid import-reveal"), 5),
    **dict.fromkeys(("compute-market settle arm", "compute-market settle cancel-arm"), 5),
    "compute-market params rollback": 5,
    "compute-market receipts import": 7,
    "state restore": 3,
}
# What is right here.
ARGUMENTS_HERE: dict[Path_, Path_] = {
    ("compute", "wait"): ("done", "--timeout", "0"),
    ("compute", "submit"): ("job.json", "--lane", "consumer"),
    ("bid", "commit"): ("job.json", "--bidder", "alice"),
    ("key", "show"): ("node",),
    ("compute-market", "receipts", "show"): ("done",),
    ("compute-market", "receipts", "export"): ("receipts.jsonl", "--key", "node"),
}


def run(cli: Cli, *words: str, stdin: str = "") -> None:
    """A command that succeeds, whatever it says beside."""
    done = cli(*words, stdin=stdin)
    assert done.code == 0, done.err


def fill(cli: Cli) -> None:
    """A market in which whatever is counted is more than a float holds."""
    offer = {"provider": "prov", "units": 3 * HUGE, "price_per_unit": HUGE, "fee_pct_ct": 50}
    offer |= {"provider_bond": HUGE, "consumer_bond": HUGE, "capability": CAPABILITY}
    for owner in ("alice", "prov", "ann"):
        run(cli, "wallet", "deposit", owner, "--ct", str(99 * HUGE), "--it", str(99 * HUGE))
    run(cli, "compute-market", "settle", "arm", "--delay-blocks", "0")
    run(cli, "tick")
    for name in ("o-1", "o-2"):
        run(cli, "compute", "offer", "post", "-", stdin=json.dumps(offer | {"offer_id": name}))
    cli.slice()
    job = {"buyer": "alice", "workload": "transcode", "slices": ["a.slice"]}
    job |= {"max_price_per_unit": HUGE, "consumer_bond": HUGE, "provider_bond_min": HUGE}
    job |= {"capability": CAPABILITY}
    for name in ("done", "j1", "overdue"):
        text = json.dumps(
            job | {"job_id": name, "deadline_secs": 60 if name == "overdue" else 9999}
        )
        run(cli, "compute", "submit", "-", stdin=text)
    waits = job | {"job_id": "waits", "max_price_per_unit": HUGE - 1}
    run(cli, "compute", "submit", "-", "--wait", stdin=json.dumps(waits))
    run(cli, "compute", "execute", "done")
    run(cli, "key", "new", "node")
    run(cli, "key", "new", "alice")
    (cli.directory / "job.json").write_text(json.dumps(job | {"job_id": "sealed"}))
    run(cli, "bid", "commit", "job.json", "--bidder", "alice")
    pool = ("--lane", "consumer", "--sender", "ann", "--bytes", "9")
    run(cli, "mempool", "submit", *pool, "--fee", str(HUGE))
    run(cli, "compute", "offer", "set", "o-2", "--price", str(HUGE + 1))
    run(cli, "compute-market", "params", "propose", "min_capacity", "5")
    run(cli, "compute", "courier", "send", "a.slice", "alice")
    run(cli, "chain", "advance", "60")
    cli.advance(61)


def large(document: Any, path: str = "") -> Iterator[str]:
    """The numbers of a document that a float would round, by the names that lead to them."""
    if isinstance(document, dict):
        for name, value in document.items():
            yield from large(value, f"{path}.{name}")
    elif isinstance(document, list):
        for value in document:
            yield from large(value, f"{path}[]")
    elif isinstance(document, int) and abs(document) >= EXACT:
        yield path


def printed(done: Done) -> list[Any]:
    """The documents of both streams, one or one per line."""
    found = []
    for text in (done.out, *(line for line in done.err.splitlines() if line[:1] == "{")):
        try:
            found.append(json.loads(text or "null"))
        except ValueError:
            found += map(json.loads, text.splitlines())
    return found


def test_no_amount_of_any_document_is_a_number(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(cli)
    monkeypatch.setenv(*TRUST)
    bid, bundle = cli.document("bid", "list")[0], cli.document("compute", "courier", "list")[0]
    here = ARGUMENTS_HERE | {
        ("bid", "show"): (bid["bid_id"],),
        ("compute", "courier", "show"): (bundle["id"],),
        ("compute", "courier", "resend"): (bundle["id"],),
    }
    failed = {}
    for path in VERBS.keys() - SILENT:
        dry = ("-n",) if VERBS[path].writes else ()
        words = (*path, *here.get(path, arguments_of(path)[len(path) :]), *dry, "--json")
        done = cli(*words)
        plain, text = printed(done), printed(cli(*words, *AS_TEXT))
        if done.code:
            failed[" ".join(path)] = done.code
        assert sorted(set(large(text))) == [], path
        assert path in OTHER_EACH_TIME or as_text(plain) == text, path
    assert failed == REFUSED


def test_every_amount_of_a_request_is_known() -> None:
    amounts = {
        field.name
        for kind in (OfferRequest, JobRequest, CapabilityRequest)
        for field in fields(kind)
        if field.type == Amount
    }
    # A percentage is small.
    assert amounts - FIELDS == {"fee_pct_ct"}


def test_offer_that_is_shown_as_text_is_a_file_of_it(cli: Cli) -> None:
    cli.post("--offer-id", "o-1", units=HUGE, price=HUGE)
    text = cli.ok("compute", "offer", "show", "o-1", "--json", *AS_TEXT)
    shown = json.loads(text)
    assert (shown["units"], shown["price_per_unit"], shown["units_left"]) == (str(HUGE),) * 3
    assert shown["fee_pct_ct"] == 100
    assert (
        cli.ok("compute", "offer", "post", "-", stdin=text) == "offer o-1 exists, unchanged: open\n"
    )
    assert "unchanged" in cli.ok("compute", "offer", "set", "-", stdin=text)
    shown["units"] = str(HUGE + 1)
    cli.ok("compute", "offer", "set", "-", stdin=json.dumps(shown))
    assert cli.offer()["units"] == HUGE + 1


def test_lists_and_lines_have_amounts_as_text(cli: Cli) -> None:
    cli.post(price=HUGE)
    for words in (("--jsonl",), ("--json",)):
        out = cli.ok("compute", "offer", "list", *words, *AS_TEXT)
        assert f'"price_per_unit":"{HUGE}"' in out
    assert f"\t{HUGE}\t" in cli.ok("compute", "offer", "list", *AS_TEXT)


def test_variable_says_the_same_and_the_option_wins(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli.ok("wallet", "deposit", "alice", "--ct", "5")
    balance = ("wallet", "balance", "alice", "--json")
    monkeypatch.setenv("TB_JSON_AMOUNTS", "string")
    assert cli.document(*balance[:-1])["ct"] == "5"
    assert json.loads(cli.ok(*balance, "--json-amounts", "integer"))["ct"] == 5
    assert json.loads(cli.ok("--json-amounts", "integer", *balance))["ct"] == 5
    lines = "wallet balance alice --json\nwallet balance alice --json --json-amounts integer\n"
    out = cli.ok("batch", "-", stdin=lines)
    assert (out.count('"ct": "5"'), out.count('"ct": 5')) == (1, 1)
    monkeypatch.setenv("TB_JSON_AMOUNTS", "text")
    done = cli(*balance)
    assert (done.code, done.out, done.error["error"]) == (2, "", "usage")
    assert "TB_JSON_AMOUNTS: 'text' is neither integer nor string" in done.error["message"]


def test_error_has_amounts_as_text(cli: Cli) -> None:
    cli.ok("wallet", "deposit", "alice", "--ct", "5")
    words = ("wallet", "deposit", "alice", "--ct", str(2**63 - 1), "--json")
    plain, text = cli(*words).error, cli(*words, *AS_TEXT).error
    assert text == as_text(plain)
