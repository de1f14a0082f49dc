"""`mempool submit|stats`, and what other verbs say of the comfort guard."""

import json

import pytest

from compute_market.amounts import AMOUNT_MAX
from compute_market.jobs.jobs import find
from tests.support.cli import Cli, Done

pytest_plugins = ("tests.support.cli",)

TIGHT = (
    "the comfort guard is tight: the 90th percentile of the last consumer fees is 2501, above "
    "comfort_threshold_p90 2500"
)


def words(*more: str, sender: str = "ann", fee: str = "7", size: str = "100") -> tuple[str, ...]:
    given = ("--lane", "consumer", "--sender", sender, "--fee", fee, "--bytes", size)
    return ("mempool", "submit", *given, *more)


def tighten(cli: Cli) -> None:
    cli.ok(*words(fee="2501"))


def test_submit_makes_a_market_and_tells_what_it_admitted(cli: Cli) -> None:
    assert cli.ok(*words()) == (
        "admitted t-1: 7 for 100 bytes from ann; the comfort guard is loose\n"
    )
    assert cli.document(*words(fee="3000", sender="joe")) == {
        "tx_id": "t-2",
        "lane": "consumer",
        "sender": "joe",
        "fee": 3000,
        "bytes": 100,
        "admitted": True,
        "mode": "tight",
        "changed": True,
    }


def test_stats_tell_mode_fees_and_both_pools(cli: Cli) -> None:
    cli.ok(*words())
    assert cli.ok("mempool", "stats") == (
        "mode: loose\nfee_p50: 7\nfee_p90: 7\n"
        "lane=consumer size=1 age_p50_ms=0 age_p95_ms=0\n"
        "lane=industrial size=0 age_p50_ms=0 age_p95_ms=0\n"
    )
    empty = {"size": 0, "age_p50_ms": 0, "age_p95_ms": 0}
    assert cli.document("mempool", "stats") == {
        "mode": "loose",
        "fee_p50": 7,
        "fee_p90": 7,
        "lanes": {"consumer": empty | {"size": 1}, "industrial": empty},
    }
    cli.advance(1)
    before = cli.files()
    assert cli.document("mempool", "stats")["lanes"] == {"consumer": empty, "industrial": empty}
    assert cli.files() == before  # The next change lets the block take it.


def test_stats_without_a_market_make_none(cli: Cli) -> None:
    done = cli("mempool", "stats")
    assert (done.code, done.out) == (3, "")
    assert not cli.home.exists()


def test_submit_with_a_key_is_repeatable(cli: Cli) -> None:
    cli.ok(*words("--key", "k"))
    cli.advance(5)
    assert cli.ok(*words("--key", "k")) == (
        "key k was used: t-1, unchanged; the comfort guard is loose\n"
    )
    assert cli.document(*words("--key", "k"))["changed"] is False
    other = cli(*words("--key", "k", fee="8"))
    assert other.code == 6
    assert "fee" in other.err
    assert cli.document(*words())["tx_id"] == "t-2"


def test_submit_as_a_dry_run_admits_nothing(cli: Cli) -> None:
    cli.ok("state", "init")
    before = cli.files()
    assert cli.document(*words("-n"))["dry_run"] is True
    assert cli.files() == before


def test_submit_tells_who_had_to_go(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TB_MEMPOOL_LANE_LIMIT", "1")
    cli.ok(*words())
    assert cli.ok(*words(fee="8")) == (
        "admitted t-2: 8 for 100 bytes from ann, t-1 had to go; the comfort guard is loose\n"
    )
    assert cli.document(*words(fee="9"))["evicted"] == "t-2"


def test_submit_that_is_refused_is_exit_5_and_remembered(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TB_MEMPOOL_SENDER_LIMIT", "1")
    monkeypatch.setenv("TB_MEMPOOL_LANE_LIMIT", "2")
    cli.ok(*words())
    assert cli(*words(fee="9")) == Done(
        5,
        "",
        "error[refused]: the consumer pool holds 1 of ann, and mempool_sender_limit is 1\n"
        "hint: send it again once a block has taken one of them\n",
    )
    cli.ok(*words(sender="bob"))
    refused = cli(*words("--json", sender="joe", fee="6"))
    assert refused.code == 5
    assert refused.json == {
        "tx_id": None,
        "lane": "consumer",
        "sender": "joe",
        "fee": 6,
        "bytes": 100,
        "admitted": False,
        "mode": "loose",
        "reason": "pool_full",
        "changed": False,
    }
    assert (refused.error["error"], refused.error["reason"]) == ("refused", "pool_full")
    assert (refused.error["retryable"], refused.error["retry_after_ms"]) == (True, 1000)
    logged = cli.document("log", "--event", "tx_refused")
    assert [each["detail"]["reason"] for each in logged] == ["sender_limit", "pool_full"]
    # A key that was refused is not used up.
    assert cli(*words("--key", "k", sender="joe", fee="6")).code == 5
    cli.advance(1)
    assert cli.document(*words("--key", "k", sender="joe", fee="6"))["tx_id"] == "t-3"


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("--fee", value) for value in ("0", "-1", str(AMOUNT_MAX + 1), "x", "1.5", "", "١")),
        *(("--bytes", value) for value in ("0", "-5", str(2**20 + 1), "1e3", "")),
        *(("--lane", value) for value in ("industrial", "CONSUMER", "consumers", "")),
        *(("--sender", value) for value in ("", "a b", "-", "x" * 129, "a\tb")),
    ],
)
def test_submit_of_bad_input_is_usage_and_makes_nothing(cli: Cli, option: str, value: str) -> None:
    given = {"--lane": "consumer", "--sender": "ann", "--fee": "7", "--bytes": "9"}
    given[option] = value
    done = cli("mempool", "submit", *(f"{name}={text}" for name, text in given.items()))
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error[usage]: ")
    assert option.strip("-") in done.err
    assert not cli.home.exists()


def test_submit_to_the_industrial_lane_names_the_verb_for_it(cli: Cli) -> None:
    given = ("--lane", "industrial", "--sender", "a", "--fee", "1", "--bytes", "1")
    assert cli("mempool", "submit", *given).err == (
        "error[usage]: --lane: a transaction is of the consumer lane, not of industrial\n"
        "hint: the industrial lane takes jobs: `tb-cli compute submit`\n"
    )


@pytest.mark.parametrize("left_out", ["--lane", "--sender", "--fee", "--bytes"])
def test_submit_names_the_option_that_is_missing(cli: Cli, left_out: str) -> None:
    given = words()
    at = given.index(left_out)
    done = cli(*given[:at], *given[at + 2 :])
    assert done.code == 2
    assert left_out in done.err


# What other verbs say of the guard.


def test_refusal_may_pass_later_though_blocks_pass_by_hand(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TB_BLOCK_INTERVAL_SECS", "0")
    monkeypatch.setenv("TB_MEMPOOL_SENDER_LIMIT", "1")
    cli.ok("state", "init")
    cli.ok(*words())
    refused = cli(*words("--json")).error
    assert refused["reason"] == "sender_limit"
    assert (refused["retryable"], "retry_after_ms" in refused) == (True, False)


def test_submit_of_a_job_while_tight_is_exit_5_by_the_number_it_crossed(cli: Cli) -> None:
    cli.post()
    tighten(cli)
    done = cli(*cli.job_arguments())
    assert done.code == 5
    assert done.err.startswith(f"error[refused]: {TIGHT}\nhint: ")
    refused = cli(*cli.job_arguments("j1", "--json", "--wait")).error
    assert (refused["error"], refused["reason"]) == ("refused", "comfort_guard")
    # It passes once the fees have fallen, and nobody knows when that is.
    assert refused["retryable"] is True
    assert "retry_after_ms" not in refused
    assert cli.view(lambda txn: find(txn, "j1")) is None
    assert cli.submit("j1", "--lane", "consumer")["state"] == "active"
    (first, _) = cli.document("log", "--event", "job_refused")
    assert first["detail"]["mode"] == "tight"
    assert first["detail"]["units"] == 1


def test_queue_and_explain_tell_that_the_guard_holds_a_job(cli: Cli) -> None:
    cli.ok("state", "init")
    cli.submit("j1", "--wait")
    tighten(cli)
    cli.post()
    assert cli.ok("compute", "queue").split("\t")[-1] == "admission: comfort_guard\n"
    decision = cli.document("compute", "explain", "j1")["decision"]
    assert (decision["reason"], decision["message"]) == ("admission: comfort_guard", TIGHT)


def test_explain_of_a_file_tells_that_the_guard_would_hold_it(cli: Cli) -> None:
    cli.post()
    job = {"job_id": "j1", "buyer": "alice", "workload": "transcode", "max_price_per_unit": 9}
    path = cli.directory / "job.json"
    path.write_text(json.dumps(job | {"slices": [str(cli.slice())]}))
    assert cli.document("compute", "explain", path)["held"] is None
    tighten(cli)
    found = cli.document("compute", "explain", path)
    hint = "`tb-cli mempool stats` shows fees and ages; it opens as they fall"
    assert found["held"] == {
        "by": "admission: comfort_guard",
        "message": TIGHT,
        "hint": hint,
        "retry_after_ms": None,
    }
    told = f"held: admission: comfort_guard: {TIGHT}; {hint}\n"
    assert told in cli.ok("compute", "explain", path)


def test_metrics_tell_the_guard_and_the_pools(cli: Cli) -> None:
    tighten(cli)
    assert cli(*cli.job_arguments()).code == 5
    found = cli.ok("metrics").splitlines()
    for line in (
        'admission_mode{mode="loose"} 0.0',
        'admission_mode{mode="tight"} 1.0',
        'mempool_size{lane="consumer"} 1.0',
        'mempool_size{lane="industrial"} 0.0',
        "consumer_fee_p50 2501.0",
        "consumer_fee_p90 2501.0",
        'industrial_rejected_total{reason="comfort_guard"} 1.0',
        "industrial_deferred_total 1.0",
    ):
        assert line in found
