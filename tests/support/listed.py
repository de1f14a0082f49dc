"""A market that has something for every list, at an instant that is the same in every run."""

import time
from types import SimpleNamespace

import pytest

from tests.support.cli import HELLO, Cli

# Saturday, the 28th of November 2026, 12:00 in UTC.
NOON_MS = 1_795_867_200_000

# Every list, as a command line that lists something in that market.
LISTS: tuple[str, ...] = (
    "compute list",
    "compute queue",
    "compute slices render-1",
    "compute history render-1",
    "compute offer list",
    "compute courier list",
    "compute-market params history",
    "compute-market receipts list",
    "wallet history alice",
    "wallet list",
    "bid list",
    "net reputation show",
    "net reputation show prov --history",
    "key list",
    "log",
    "config show",
    "state stats",
)


def fixed_clock(cli: Cli, patch: pytest.MonkeyPatch) -> None:
    """Let it be noon, in UTC, and let an operator be at work whose name is known."""
    passed_ms = NOON_MS - cli.now_ms
    cli.now_ms = NOON_MS
    cli.boot_ns -= passed_ms * 1_000_000
    patch.setenv("TZ", "UTC")
    time.tzset()
    patch.setattr("pwd.getpwuid", lambda uid: SimpleNamespace(pw_name="operator"))


def fill(cli: Cli) -> None:
    """Offers, jobs in every state, receipts, money, a bid, bundles, proposals, scores and keys."""
    cli.ok("state", "init")
    # No epoch ends, and nothing is paid for it.
    (cli.home / "config.toml").write_text("epoch_blocks = 1000000\n")
    cli.real()
    cli.post("--offer-id", "gpu-lab", "--gpu", "RTX4090", "--gpu-count", "2", units=40, price=5)
    cli.post("--offer-id", "cheap", "--bond", "9", provider="other", units=10, price=3)
    cli.post("--offer-id", "gone", units=5, price=9)
    cli.ok("compute", "offer", "withdraw", "gone")
    cli.advance(60)
    cli.submit("render-1", slices=[cli.slice("a.slice"), cli.slice("b.slice", bytes(2 << 20))])
    cli.ok("compute", "prove", "render-1", "0", HELLO)
    cli.advance(60)
    for job_id, more in (
        ("render-2", ("--priority", "high")),
        ("render-3", ("--lane", "consumer")),
        ("render-4", ()),
        ("waits", ("--gpu", "H100", "--wait")),
    ):
        cli.submit(job_id, *more)
        cli.advance(30)
    cli.ok("compute", "execute", "render-2")
    cli.ok("compute", "cancel", "render-3")
    cli.ok("net", "reputation", "adjust", "prov", "+7", "--reason", "long known")
    cli.ok("compute", "courier", "send", str(cli.slice("c.slice")), "alice")
    cli.ok("compute-market", "params", "propose", "min_capacity", "5")
    cli.ok("compute-market", "params", "propose", "comfort_threshold_p90", "500")
    cli.ok("key", "new", "k1")
    (cli.directory / "bid.json").write_text(
        '{"job_id": "sealed", "buyer": "alice", "workload": "transcode",'
        ' "max_price_per_unit": 9, "slices": [{"path": "a.slice"}]}'
    )
    cli.ok("bid", "commit", "bid.json", "--bidder", "k1", "--owner", "alice")
    cli.advance(3600)
