"""`metrics`."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from compute_market import __version__
from compute_market.metrics import METRICS
from tests.support.cli import RETUNED, WRONG, Cli, without

pytest_plugins = ("tests.support.cli",)


def busy_market(cli: Cli) -> None:
    """A market in which everything that is counted has happened."""
    cli.real()
    for _ in range(7):
        cli.ok(
            "compute-market", "capacity", "record", "0"
        )  # with the seed of 100: 12, or 720 in a minute
    cli.post("--bond", "10", "--fee-pct-ct", "25", "--reputation", "5")
    for name in ("done", "cancelled", "by-provider", "late"):
        cli.submit(name, "--deadline-secs", "65" if name == "late" else "500")
    cli("compute", "prove", "done", "0", WRONG)
    cli.ok("compute", "execute", "done")
    cli.ok("compute", "cancel", "cancelled")
    cli.ok("compute", "cancel", "by-provider", "--by", "provider")
    cli(*cli.job_arguments("refused", "--accelerator", "TPU"))
    big = {"job_id": "big", "buyer": "alice", "workload": "transcode", "max_price_per_unit": 5}
    (cli.directory / "big.json").write_text(json.dumps(big | {"slices": [cli.sparse(721)]}))
    assert cli("compute", "submit", "big.json").code == 5
    cli.advance(66)
    cli.ok("compute-market", "sla", "sweep", due=f"1 IT of subsidies paid, {RETUNED}")
    cli.submit("runs", "--priority", "high")


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_every_metric_of_the_table_is_exposed(cli: Cli) -> None:
    cli.ok("state", "init")
    families = {f.name: f for f in text_string_to_metric_families(cli.ok("metrics"))}
    names = {metric.name.removesuffix("_total"): metric for metric in METRICS}
    assert families.keys() == names.keys()
    for name, family in families.items():
        assert (family.type, family.documentation) == (names[name].kind, names[name].help)
        for sample in family.samples:
            assert sample.labels.keys() - {"le"} == {label for label, _ in names[name].labels}


def test_series_with_bounded_labels_begin_at_zero(cli: Cli) -> None:
    cli.ok("state", "init")
    found = samples(cli.ok("metrics"))
    assert found["scheduler_cancel_total", (("reason", "client"),)] == 0
    assert found["compute_market_fee_split_total", (("kind", "burned"), ("token", "ct"))] == 0
    assert found["matches_total", (("dry_run", "true"),)] == 0
    assert found["tb_build_info", (("version", __version__),)] == 1


def test_counters_tell_what_happened(cli: Cli) -> None:
    busy_market(cli)
    found = samples(cli.ok("metrics"))
    expected = {
        ("industrial_admitted_total", ()): 5,
        ("industrial_units_total", ()): 1,
        ("industrial_deferred_total", ()): 1,
        ("industrial_rejected_total", (("reason", "capacity"),)): 1,
        ("industrial_rejected_total", (("reason", "SLA"),)): 1,
        ("industrial_rejected_total", (("reason", "fair_share"),)): 0,
        ("industrial_backlog", ()): 1,
        ("industrial_price_per_unit", ()): 5,
        ("scheduler_match_total", (("result", "success"),)): 6,
        ("scheduler_match_total", (("result", "capability_mismatch"),)): 1,
        ("scheduler_accelerator_miss_total", ()): 1,
        ("scheduler_active_jobs", ()): 1,
        ("scheduler_queue_depth", (("priority", "high"),)): 0,
        ("scheduler_cancel_total", (("reason", "client"),)): 1,
        ("scheduler_cancel_total", (("reason", "provider"),)): 1,
        ("provider_reputation_score", (("provider", "prov"),)): 5 - 1 + 1 - 1 - 1,
        ("reputation_adjust_total", (("result", "success"),)): 1,
        ("reputation_adjust_total", (("result", "failure"),)): 3,
        ("matches_total", (("dry_run", "false"),)): 1,
        ("settle_applied_total", ()): 1,
        ("settle_mode_change_total", (("to", "real"),)): 1,
        ("slashing_burn_ct_total", ()): 10,
        ("compute_market_fee_split_total", (("kind", "paid"), ("token", "ct"))): 2,
        ("compute_market_fee_split_total", (("kind", "paid"), ("token", "it"))): 3,
        ("compute_market_fee_split_total", (("kind", "burned"), ("token", "ct"))): 10,
        ("compute_market_fee_split_total", (("kind", "refunded"), ("token", "it"))): 9,
        ("scheduler_match_latency_seconds_count", ()): 7,
        ("tb_last_run_timestamp_seconds", ()): cli.now,
        ("active_burst_quota", (("identity", "alice"), ("role", "buyer"))): 30,
    }
    assert {key: found.get(key) for key in expected} == expected


def test_reading_counts_nothing(cli: Cli) -> None:
    busy_market(cli)
    before = cli.ok("metrics")
    cli.ok("compute", "list")
    cli.ok("compute", "explain", "runs")
    cli.ok("compute-market", "audit")
    assert cli.ok("metrics") == before


def test_exposition_has_no_time_stamps_and_sorted_labels(cli: Cli) -> None:
    busy_market(cli)
    for line in cli.ok("metrics").splitlines():
        if line.startswith("#"):
            continue
        matched = re.fullmatch(r"[a-z_0-9]+(\{(.*)\})? [0-9.e+-]+", line)
        assert matched, line
        labels = re.findall(r'(\w+)="', matched.group(2) or "")
        assert labels == sorted(labels)


def test_textfile_is_written_at_once(cli: Cli, tmp_path: Path) -> None:
    busy_market(cli)
    directory = tmp_path / "collector"
    directory.mkdir()
    target = directory / "tb.prom"
    target.write_text("old")
    before = target.stat().st_ino
    assert cli.ok("metrics", "--textfile", target) == ""
    assert target.read_text() == cli.ok("metrics")
    # A rename: a collector that reads meanwhile sees the old file or the new one, never half.
    assert target.stat().st_ino != before
    assert [path.name for path in directory.iterdir()] == ["tb.prom"]


def test_textfile_that_cannot_be_written_is_usage(cli: Cli, tmp_path: Path) -> None:
    cli.ok("state", "init")
    target = tmp_path / "missing" / "tb.prom"
    error = f"error[usage]: {target}: no such file or directory\n"
    assert cli("metrics", "--textfile", target) == (2, "", error)


def test_textfile_that_is_a_directory_leaves_nothing_behind(cli: Cli, tmp_path: Path) -> None:
    target = tmp_path / "taken"
    target.mkdir()
    before = sorted(tmp_path.iterdir())
    cli.ok("state", "init")
    done = cli("metrics", "--textfile", target)
    assert (done.code, done.out) == (2, "")
    assert sorted(set(tmp_path.iterdir()) - {cli.home}) == before


def test_promtool_accepts_the_exposition(cli: Cli) -> None:
    missing = without("promtool")
    if missing:
        pytest.skip(missing)
    busy_market(cli)
    text = cli.ok("metrics")
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
