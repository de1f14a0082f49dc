"""Claim: a command in a shell loop costs at most 6.5 starts of Python, its durable commit included.

Peer: `python -c pass` of the same virtual environment. The repository is installed into a fresh
one as users do it, with `pip install`; each round runs every command once.
"""

import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import measure

REPOSITORY = Path(__file__).resolve().parent.parent
CANCEL_BOUND = 6.5
READ_BOUND = 6.0


def main() -> None:
    parser = measure.arguments(__doc__)
    quick = parser.parse_args().quick
    rounds = 11 if quick else 41
    with measure.scratch(on_disk=True) as directory:
        bin_ = install(directory / "venv")
        home = directory / "home"
        job_ids = iter(measure.funded_jobs(home, 3 * (rounds + 1) + 1))
        kept = next(job_ids)
        env = measure.environment(home)
        tool = bin_ / "tb-cli"

        def call(*words: str | Path) -> measure.Action:
            return lambda: measure.command(words, env)

        def cancel(*options: str) -> measure.Action:
            return lambda: measure.command(
                [tool, "compute", "cancel", next(job_ids), *options], env
            )

        times = measure.interleave(
            {
                "python -c pass": call(bin_ / "python", "-c", "pass"),
                "compute cancel ID": cancel(),
                "compute-market params": call(tool, "compute-market", "params"),
                "--version": call(tool, "--version"),
                # What other spellings of the same cost.
                "compute status ID": call(tool, "compute", "status", kept),
                "compute cancel ID --json": cancel("--json"),
                "compute cancel ID --by client": cancel("--by", "client"),
                "compute-market params --no-color": call(
                    tool, "compute-market", "params", "--no-color"
                ),
                "--help": call(tool, "--help"),
            },
            rounds,
        )
    floor = times["python -c pass"]
    print(f"{'command':34} {'median ms':>9} {'ratio':>6}")
    for name, taken in times.items():
        median_ms = 1000 * statistics.median(taken)
        print(f"{name:34} {median_ms:9.1f} {measure.ratio(taken, floor):6.2f}")
    for name, bound in (
        ("compute cancel ID", CANCEL_BOUND),
        ("compute-market params", READ_BOUND),
        ("--version", READ_BOUND),
    ):
        measure.claim(name, measure.ratio(times[name], floor), bound, "× python -c pass")
    measure.finish()


def install(path: Path) -> Path:
    """Make a virtual environment, install the repository and return where its commands are."""
    env = measure.environment(path)
    run([sys.executable, "-m", "venv", path], env)
    python = path / "bin" / "python"
    run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", REPOSITORY], env)
    # pip compiles what it installs unless told otherwise; a first start must not be measured.
    run([python, "-m", "compileall", "-q", path / "lib"], env, check=False)
    return path / "bin"


def run(words: Sequence[str | Path], env: dict[str, str], *, check: bool = True) -> None:
    subprocess.run(words, env=env, check=check, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
