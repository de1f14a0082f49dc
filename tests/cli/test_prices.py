"""`compute-market prices`, offers at the market price, and the board from command to command."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from compute_market.offers import price_file
from tb_cli.prices import graph
from tests.support.cli import NO_MONEY, Cli
from tests.support.serving import Process

pytest_plugins = ("tests.support.cli",)

PRICES = ("compute-market", "prices")
REFUSED = "error[refused]: no price data\n"


def board_of(cli: Cli) -> Path:
    return cli.home / "state" / "price_board.v2.bin"


def priced(cli: Cli, *prices: int, first: int = 0) -> None:
    """A job at each price."""
    for number, price in enumerate(prices, first):
        job_id = f"job-{number}"
        cli.post("--job", job_id, price=price, units=1)
        cli.submit(job_id)


def test_prices_shows_the_bands_of_each_lane(cli: Cli) -> None:
    priced(cli, 1, 2, 3, 4)
    at = cli.now
    cli.advance(12)
    industrial = {"p25": 2, "median": 3, "p75": 4, "samples": 4, "newest_at": at}
    assert cli.document(*PRICES) == {"industrial": industrial, "consumer": None}
    assert cli.document(*PRICES, "--lane", "consumer") == {"consumer": None}
    assert cli.ok(*PRICES) == f"industrial\t2\t3\t4\t4\t{at}\nconsumer\t-\t-\t-\t0\t-\n"
    assert cli.ok(*PRICES, "show", "--lane", "industrial") == f"industrial\t2\t3\t4\t4\t{at}\n"


def test_suggest_says_what_to_bid_and_why(cli: Cli) -> None:
    priced(cli, 100)
    found = {"lane": "industrial", "suggested": 100, "median": 100, "backlog": 0, "window": 100}
    assert cli.document(*PRICES, "suggest") == found
    assert cli.ok(*PRICES, "suggest") == "".join(f"{k}: {v}\n" for k, v in found.items())
    for command in ((*PRICES, "suggest", "--lane", "consumer"),):
        done = cli(*command)
        assert (done.code, done.out) == (5, "")
        assert done.err.startswith(REFUSED)
        assert cli(*command, "--json").error["reason"] == "no_price_data"


def test_post_at_price_0_says_what_it_took(cli: Cli) -> None:
    done = cli("compute", "offer", "post", "--provider", "p", "--units", "9", "--price", "0")
    assert (done.code, done.out) == (5, "no price data\n")
    assert done.err.startswith(REFUSED)
    assert not cli.home.exists()
    priced(cli, 100)
    words = ("compute", "offer", "post", "--provider", "p", "--units", "9", "--price", "0")
    words = (*words, "--offer-id", "m")
    assert cli.ok(*words, "-n") == "dry_run: posted offer m at 100, the market price\n"
    assert cli.ok(*words) == "posted offer m at 100, the market price\n"
    assert cli.ok(*words) == "offer m exists, unchanged: open\n"
    assert cli.offer("m")["market_priced"] is True
    lines = '{"provider":"q","units":1,"price_per_unit":0}\n' * 3
    assert [each["price_per_unit"] for each in cli.document(*words[:3], "-", stdin=lines)] == [
        100,
        100,
        100,
    ]


def test_dry_submit_compares_its_price_with_the_band(cli: Cli) -> None:
    cli.post(price=50)
    dry = cli(*cli.job_arguments("j1"), "-n")
    told = "there is no price data of the lane industrial\n"
    assert dry == (
        0,
        f"dry_run: submitted job j1: active, 1 unit at 50 from prov{NO_MONEY}\n",
        told,
    )
    priced(cli, 4, 5, 5, 6)
    band = "the industrial band 5…6, median 5 of 4 prices\n"
    for price, place in ((4, "below"), (5, "within"), (6, "within"), (7, "above")):
        dry = cli(*cli.job_arguments("j1", "--max-price", str(price)), "-n")
        assert dry.err.endswith(f"a highest price of {price} is {place} {band}")
    jobs = "".join(
        f'{{"job_id":"a{n}","buyer":"b","workload":"transcode","slices":["a.slice"],'
        f'"max_price_per_unit":{price},"lane":"{lane}"}}\n'
        for n, (price, lane) in enumerate(((1, "industrial"), (9, "industrial"), (9, "consumer")))
    )
    assert cli("compute", "submit", "-", "-n", stdin=jobs).err.endswith(
        f"of 2 highest prices 1 below and 1 above {band.strip()}; "
        "there is no price data of the lane consumer\n"
    )
    assert cli(*cli.job_arguments("j1"), "-n", "--json").err == ""
    assert cli(*cli.job_arguments("j1")).err == ""


def test_board_is_loaded_and_saved_with_a_word_when_debugged(cli: Cli) -> None:
    cli.post("--offer-id", "main")
    missing = "no price board at state/price_board.v2.bin: it starts empty\n"
    assert cli(*PRICES, "--debug").err == missing
    assert cli(*PRICES).err == ""
    done = cli(*cli.job_arguments("j1"), "--debug")
    assert done.err == "saved price board: 1 industrial and 0 consumer prices\n"
    done = cli(*PRICES, "--debug")
    assert done.err == "loaded price board: 1 industrial and 0 consumer prices\n"
    assert cli("compute", "cancel", "j1", "--debug").err == ""


def test_reading_and_dry_runs_write_no_board(cli: Cli) -> None:
    cli.post()
    for command in (PRICES, ("metrics",), (*cli.job_arguments(), "-n")):
        assert cli(*command).code == 0
    assert not board_of(cli).exists()
    cli.submit()
    before = cli.files()
    board_of(cli).write_bytes(b"damaged")
    damaged = cli.files()
    for command in (PRICES, ("metrics",), (*cli.job_arguments("j2"), "-n")):
        assert cli(*command).err.startswith(
            "warning: price board state/price_board.v2.bin: it is no price board; it starts empty\n"
        )
    assert cli.files() == damaged != before


def test_damaged_board_is_replaced_with_a_warning(cli: Cli) -> None:
    priced(cli, 3)
    board_of(cli).write_bytes(board_of(cli).read_bytes()[:-1])
    cli.post(price=7)
    done = cli(*cli.job_arguments("j1"))
    told = "it is not as long as it says; it has started empty"
    assert done.code == 0
    assert done.err == f"warning: price board state/price_board.v2.bin: {told}\n"
    assert cli.document(*PRICES)["industrial"]["samples"] == 1


def test_deleting_the_file_clears_the_board(cli: Cli) -> None:
    priced(cli, 3, 4)
    board_of(cli).unlink()
    assert cli.document(*PRICES) == {"industrial": None, "consumer": None}
    priced(cli, 9, first=5)
    assert cli.document(*PRICES)["industrial"]["median"] == 9


def test_server_shows_what_the_file_says_by_now(cli: Cli) -> None:
    cli.ok("state", "init")
    serve = Process(cli)

    def served() -> tuple[int, str]:
        """Samples by RPC, and the lines of the scrape."""
        found = serve.far.ask("GET", "/compute_market.price_board")
        samples = found.json["industrial"]["samples"] if found.status == 200 else 0
        scrape = serve.far.ask("GET", "/metrics").body.decode()
        return samples, "".join(re.findall(r"^price_band_median.*$", scrape, re.MULTILINE))

    try:
        assert served() == (0, "")
        priced(cli, 3)
        assert served() == (1, 'price_band_median{lane="industrial"} 3.0')
        priced(cli, 5, 5, first=1)
        assert served() == (3, 'price_band_median{lane="industrial"} 5.0')
        board_of(cli).unlink()
        assert served() == (0, "")
        priced(cli, 9, first=3)
        assert served() == (1, 'price_band_median{lane="industrial"} 9.0')
        board_of(cli).write_bytes(b"damaged")
        assert served() == (0, "")
    finally:
        serve.end(signal.SIGTERM)


def test_board_that_cannot_be_saved_is_a_warning_and_counted(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli.post()
    board_of(cli).mkdir(parents=True)
    done = cli(*cli.job_arguments("j1"))
    assert done == (
        0,
        f"submitted job j1: active, 1 unit at 5 from prov{NO_MONEY}\n",
        "warning: price board state/price_board.v2.bin: is not a regular file; it is not saved\n",
    )
    board_of(cli).rmdir()
    assert 'price_board_save_total{result="failed"} 1.0\n' in cli.ok("metrics")
    monkeypatch.setenv("TB_PRICE_BOARD_PATH", "market/data.mdb")
    done = cli(*cli.job_arguments("j2"))
    assert done.code == 0
    assert "which belongs to the market itself; it is not saved\n" in done.err
    done = cli(*PRICES)
    assert (done.code, done.out.count("\n")) == (0, 2)
    assert "which belongs to the market itself; it is empty\n" in done.err


def test_path_with_a_tilde_is_refused_and_a_missing_directory_told(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli.post()
    monkeypatch.setenv("TB_PRICE_BOARD_PATH", "~/board")
    done = cli(*cli.job_arguments("j1"))
    assert done.code == 2
    wanted = "'~/board' is not the path of a file, relative to the home or absolute, without ~"
    assert f"TB_PRICE_BOARD_PATH: price_board_path: {wanted}" in done.err
    assert not list(cli.home.glob("~*"))
    missing = cli.directory / "missing"
    monkeypatch.setenv("TB_PRICE_BOARD_PATH", str(missing / "board"))
    done = cli(*cli.job_arguments("j1"))
    told = f"warning: price board {missing}/board: no such file or directory; it is not saved\n"
    assert (done.code, done.err) == (0, told)
    assert not missing.exists()


def test_repeated_commands_count_nothing(cli: Cli) -> None:
    priced(cli, 3)
    words = ("compute", "offer", "post", "--offer-id", "m", "--provider", "p", "--units", "9")
    cli.ok(*words, "--price", "0")
    before = cli.ok("metrics")
    cli.submit("job-0")
    cli.ok(*words, "--price", "0")
    lines = [line for line in before.splitlines() if "price_board" in line]
    assert [each for each in cli.ok("metrics").splitlines() if "price_board" in each] == lines


def test_saves_and_loads_are_counted_by_the_next_submission(cli: Cli) -> None:
    priced(cli, 3, 4, 5)
    metrics = cli.ok("metrics")
    assert 'price_board_save_total{result="success"} 2.0\n' in metrics
    assert 'price_board_load_total{result="success"} 2.0\n' in metrics
    assert 'price_board_load_total{result="missing"} 1.0\n' in metrics
    board_of(cli).write_bytes(b"x")
    cli.post()
    assert cli(*cli.job_arguments("last")).code == 0
    assert 'price_board_load_total{result="damaged"} 1.0\n' in cli.ok("metrics")


def test_save_leaves_alone_what_lies_in_its_way(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    place = cli.directory / "elsewhere"
    place.mkdir()
    (place / "board.tmp").write_text("precious")
    monkeypatch.setenv("TB_PRICE_BOARD_PATH", str(place / "board"))
    cli.post()
    done = cli(*cli.job_arguments("j1"))
    assert (done.code, "board.tmp beside it is in the way; it is not saved\n" in done.err) == (
        0,
        True,
    )
    assert [each.name for each in place.iterdir()] == ["board.tmp"]
    (place / "board.tmp").write_bytes(b"PBRD")  # What a killed save may leave.
    assert cli(*cli.job_arguments("j2")).err == ""
    assert [each.name for each in place.iterdir()] == ["board"]


def test_batch_saves_once_at_its_end_and_knows_its_own_prices(cli: Cli) -> None:
    cli.slice()
    cli.post(price=8)
    lines = [" ".join(map(str, cli.job_arguments(f"j{n}"))) for n in range(3)]
    lines += ["compute-market prices", "compute offer post --provider p --units 1 --price 0"]
    lines += ["compute-market audit", "compute-market prices suggest"]
    done = cli("batch", "-", "--debug", stdin="\n".join(lines))
    assert (done.code, "industrial\t8\t8\t8\t3" in done.out) == (0, True)
    assert "posted offer o-2 at 8, the market price" in done.out
    # The audit looks from a process of its own, and until then what is priced is saved.
    assert done.err.count("saved price board") == 1
    assert cli.document(*PRICES)["industrial"]["samples"] == 3


def test_long_command_saves_every_interval(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TB_PRICE_BOARD_SAVE_INTERVAL", "1")
    instants = iter(range(0, 10_000, 10))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(instants)))
    cli.slice()
    cli.post()
    jobs = "".join(
        f'{{"job_id":"a{n}","buyer":"b","workload":"transcode","slices":["a.slice"],'
        f'"max_price_per_unit":9}}\n'
        for n in range(4)
    )
    done = cli("compute", "submit", "-", "--chunk", "1", "--debug", stdin=jobs)
    assert [line for line in done.err.splitlines() if line.startswith("saved")] == [
        f"saved price board: {count} industrial and 0 consumer prices" for count in (2, 4)
    ]


def test_commands_at_once_lose_no_price(cli: Cli) -> None:
    """Not even the first ones, when nobody has saved a board yet."""
    slices = [cli.slice()]
    cli.post(price=3)
    running = [cli.start(*cli.job_arguments(f"j{n}", slices=slices)) for n in range(8)]
    assert [each.wait(60) for each in running] == [0] * 8
    assert cli.document(*PRICES)["industrial"]["samples"] == 8


def test_scrape_shows_bands_of_lanes_that_have_any(cli: Cli) -> None:
    assert "price_band_p25{" not in cli.ok("--home", "other", "state", "init")
    priced(cli, 1, 2, 3, 4)
    shown = cli.ok("metrics")
    for name, price in (("p25", 2), ("median", 3), ("p75", 4)):
        assert f'price_band_{name}{{lane="industrial"}} {price}.0\n' in shown
        assert f'price_band_{name}{{lane="consumer"}}' not in shown


@pytest.mark.parametrize(
    ("window", "room", "marks"),
    [
        ([], 8, None),
        ([5], 8, "▄"),
        ([5, 5, 5], 8, "▄▄▄"),
        ([1, 2, 3, 4, 5, 6, 7, 8], 8, "▁▂▃▄▅▆▇█"),
        ([1, 1, 9, 9], 2, "▁█"),
        ([0, 2**64 - 1], 60, "▁█"),
        (list(range(100)), 8, "▁▂▃▄▅▆▇█"),
    ],
)
def test_graph_shows_the_window_between_its_extremes(
    window: list[int], room: int, marks: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for encoding, drawn in (("utf-8", marks), ("ascii", None)):
        with open(os.devnull, "w", encoding=encoding) as nowhere:
            monkeypatch.setattr(sys, "stdout", nowhere)
            assert graph(window, room) == drawn
            monkeypatch.undo()


def test_killed_command_leaves_its_prices_to_the_next(cli: Cli) -> None:
    """Killed at any instant: what was committed is on the board once the next command has saved."""
    priced(cli, 5)
    cli.slice()
    cli.post(price=6)
    cli.process("--version")  # What forks the others has started.
    began = time.perf_counter()
    assert cli.process(*cli.job_arguments("whole")).code == 0
    takes_s = time.perf_counter() - began
    for number in range(6):
        running = cli.start(*cli.job_arguments(f"k{number}"))
        time.sleep(takes_s * (0.1 + 0.15 * number))
        running.kill()
        running.communicate()
        matched = len(cli.states())
        assert cli.document(*PRICES)["industrial"]["samples"] == matched
        assert price_file.decode(board_of(cli).read_bytes()).outcome == "success"
    cli.submit("last")
    found = price_file.decode(board_of(cli).read_bytes())
    assert len(found.industrial) == len(cli.states())


def test_interrupted_command_saves_what_it_has_priced(cli: Cli) -> None:
    cli.slice()
    cli.post()
    running = cli.start("compute", "submit", "-", "--chunk", "1", stdin=subprocess.PIPE)
    assert running.stdin is not None
    for n in range(2):
        job = f'{{"job_id":"a{n}","buyer":"b","workload":"transcode","slices":["a.slice"],'
        running.stdin.write(f'{job}"max_price_per_unit":9}}\n'.encode())
    running.stdin.flush()
    give_up = time.monotonic() + 60
    # What it has committed last it may not have come to keep for the board.
    while not cli.data.exists() or "a1" not in cli.states():
        assert time.monotonic() < give_up
        time.sleep(0.01)
    running.terminate()
    running.communicate()
    assert running.returncode == 143
    assert board_of(cli).exists()
