"""Claim: a command costs at most 3.5 starts of Python where loops call it most, else at most 4.5.

Peer: `python -c pass` of the same virtual environment. The repository is installed into a fresh
one as users do it, with `pip install`; each round runs every command once, and whatever writes
does new work each time: its durable commit is included. No setting is changed, but in a home whose
`config.toml` has five. Cancelling has a market of its own, so that in the other one there is a slot
for whatever is submitted.
"""

import json
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import measure

REPOSITORY = Path(__file__).resolve().parent.parent
FLOOR = "python -c pass"
HOT_BOUND = 3.5
BOUND = 4.5
SETTINGS = """\
epoch_blocks = 7
min_capacity = 12  # units a second
fair_share_cap = 0.3
settle_mode = "real"

[scheduler]
slots = 100_000
"""
OFFER = ("--provider", "prov", "--price", "5", "--units")


def main() -> None:
    parser = measure.arguments(__doc__)
    quick = parser.parse_args().quick
    rounds = 11 if quick else 41
    calls = rounds + 1  # The first round is not counted.
    with measure.scratch(on_disk=True) as directory:
        bin_ = install(directory / "venv")
        tool = bin_ / "tb-cli"
        cancelling = measure.environment(directory / "cancelling")
        _, *cancelled = measure.funded_jobs(directory / "cancelling", 2 * calls + 1)
        configured = measure.environment(directory / "configured")
        looked_at_there, *cancelled_there = measure.funded_jobs(directory / "configured", calls + 1)
        (directory / "configured" / "config.toml").write_text(SETTINGS)
        env = measure.environment(directory / "working")
        (looked_at,) = measure.funded_jobs(directory / "working", 1)
        for owner in ("buyer", "prov"):
            measure.command([tool, "wallet", "deposit", owner, "--ct", "100000"], env)
        measure.command([tool, "compute", "offer", "post", *OFFER, str(4 * calls)], env)
        executed = job_files(directory, "executed", calls)
        measure.command([tool, "compute", "submit", *executed], env)
        submitted = job_files(directory, "submitted", calls)

        sending = measure.environment(directory / "sending")
        measure.funded_jobs(directory / "sending", 1)
        bundle = job_files(directory, "bundle", 1)[0]

        def run(*words: str | Path, env: dict[str, str] = env) -> measure.Action:
            return lambda: measure.command([tool, *words], env)

        def run_each(
            before: str, each: Sequence[str | Path], env: dict[str, str] = env
        ) -> measure.Action:
            """The words, with another one of `each` behind them every time."""
            left = iter(each)
            return lambda: measure.command([tool, *before.split(), next(left)], env)

        def cancel(
            job_ids: Sequence[str], *more: str, env: dict[str, str] = cancelling
        ) -> measure.Action:
            left = iter(job_ids)
            return lambda: measure.command([tool, "compute", "cancel", next(left), *more], env)

        times = measure.interleave(
            {
                FLOOR: lambda: measure.command([bin_ / "python", "-c", "pass"], env),
                "compute cancel ID": cancel(cancelled[:calls]),
                "compute status ID": run("compute", "status", looked_at),
                "compute-market params": run("compute-market", "params"),
                "compute courier flush": run("compute", "courier", "flush"),
                # In the home that has settings.
                "compute cancel ID, configured": cancel(cancelled_there, env=configured),
                "compute status ID, configured": run(
                    "compute", "status", looked_at_there, env=configured
                ),
                "params, configured": run("compute-market", "params", env=configured),
                "courier flush, configured": run("compute", "courier", "flush", env=configured),
                "compute courier send": run_each(
                    f"compute courier send {bundle}",
                    [f"sender-{number}" for number in range(calls)],
                    env=sending,
                ),
                "compute submit FILE": run_each("compute submit", submitted),
                "compute offer post": run("compute", "offer", "post", *OFFER, "10"),
                "compute execute ID": run_each("compute execute", [path.stem for path in executed]),
                "compute list --limit 20": run("compute", "list", "--limit", "20"),
                "wallet deposit": run_each(
                    "wallet deposit buyer --ct 5 --it 5 --key",
                    [f"deposit-{number}" for number in range(calls)],
                ),
                # What others cost, and another spelling.
                "compute queue": run("compute", "queue"),
                "wallet balance": run("wallet", "balance", "buyer"),
                "compute cancel ID --by client": cancel(cancelled[calls:], "--by", "client"),
                "--version": run("--version"),
                "--help": run("--help"),
            },
            rounds,
        )
        check_states(tool, configured, {"active": 1, "cancelled": calls})
        check_states(tool, cancelling, {"active": 1, "cancelled": 2 * calls})
        check_states(tool, env, {"active": calls + 1, "completed": calls})
    print(f"{'command':30} {'median ms':>9} {'ratio':>6}")
    for name, taken in times.items():
        median_ms = 1000 * statistics.median(taken)
        print(f"{name:30} {median_ms:9.1f} {measure.ratio(taken, times[FLOOR]):6.2f}")
    for bound, names in (
        (HOT_BOUND, ("compute cancel ID", "compute status ID", "compute-market params")),
        (HOT_BOUND, ("compute courier flush",)),  # with nothing to forward
        (HOT_BOUND, ("compute cancel ID, configured", "compute status ID, configured")),
        (HOT_BOUND, ("params, configured", "courier flush, configured")),
        (BOUND, ("compute submit FILE", "compute offer post", "compute execute ID")),
        (BOUND, ("compute list --limit 20", "wallet deposit", "compute courier send")),
    ):
        for name in names:
            measure.claim(name, measure.ratio(times[name], times[FLOOR]), bound, f"× {FLOOR}")
    measure.finish()


def install(path: Path) -> Path:
    """Make a virtual environment, install the repository and return where its commands are."""
    env = measure.environment(path)
    run([sys.executable, "-m", "venv", path], env)
    python = path / "bin" / "python"
    run([python, "-m", "pip", "install", "--quiet", "--upgrade", "pip"], env)
    run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", REPOSITORY], env)
    # pip compiles what it installs unless told otherwise; a first start must not be measured.
    run([python, "-m", "compileall", "-q", path / "lib"], env, check=False)
    return path / "bin"


def run(words: Sequence[str | Path], env: dict[str, str], *, check: bool = True) -> None:
    subprocess.run(words, env=env, check=check, stdout=subprocess.DEVNULL)


def job_files(directory: Path, name: str, count: int) -> list[Path]:
    """Job descriptors of one short slice each, called after their jobs."""
    slice_ = directory / f"{name}.slice"
    slice_.write_bytes(b"hello\n")
    paths = [directory / f"{name}-{number}.json" for number in range(count)]
    for path in paths:
        job = {"job_id": path.stem, "buyer": "buyer", "workload": "transcode"}
        path.write_text(json.dumps(job | {"slices": [str(slice_)], "max_price_per_unit": 100}))
    return paths


def check_states(tool: Path, env: dict[str, str], expected: dict[str, int]) -> None:
    """Make sure that every job of a market became what was measured."""
    words = [tool, "compute", "list", "--all", "--json"]
    listed = subprocess.run(words, env=env, capture_output=True)
    states = Counter(job["state"] for job in json.loads(listed.stdout))
    if states != expected:
        raise SystemExit(f"the jobs are {dict(states)}, not {expected}")


if __name__ == "__main__":
    main()
