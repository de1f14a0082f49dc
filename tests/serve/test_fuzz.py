"""A fuzzer that reads the description of the endpoint finds no fault, and no lie in it."""

import subprocess
import sys
from pathlib import Path

import pytest

from compute_market import audit
from compute_market.jobs import jobs
from tests.support.cli import Cli
from tests.support.effort import effort
from tests.support.serving import serving

pytest_plugins = ("tests.support.cli",)

JOBS = ("j1", "j2", "j3", "j4")
EXAMPLES = str(effort(6, 300))  # requests of each operation
ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(1_800)
def test_fuzzer_finds_no_fault(cli: Cli) -> None:
    """Whatever is sent, with the token and without it: what is answered is what is described."""
    cli.active("gone", *JOBS)
    cli.ok("compute", "cancel", "gone")
    cli.advance(1)
    cli.ok("state", "archive", "--before", "0", "out.jsonl")
    cli.ok("serve", "token")
    token = (cli.home / "serve.token").read_text().strip()
    with serving() as far:
        done = subprocess.run(
            [sys.executable, "-m", "tests.support.fuzz", far.url, token, EXAMPLES, "gone", *JOBS],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        lines = [line.split() for line in done.stdout.splitlines()]
        answered = {(path, mode): set(statuses) for _, path, mode, *statuses in lines}
        assert answered["/compute.job_status", "positive"] == {"200", "404"}
        assert answered["/compute.job_status", "negative"] == {"400"}
        assert "200" in answered["/", "positive"]
        assert far.view(lambda txn: any(jobs.get(txn, each).state == "cancelled" for each in JOBS))
        assert far.view(lambda txn: list(audit.check(txn))) == []
