"""What people and programs get wrong: one clear line, the right code, and nothing changed."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lmdb
import pytest

from compute_market.store.schema import META, TABLES
from tests.support.cli import HELLO, Cli, Done, Prepared

pytest_plugins = ("tests.support.cli",)

AMOUNT_MAX = 2**63 - 1
JOB = {
    "job_id": "j9",
    "buyer": "alice",
    "workload": "transcode",
    "slices": ["a.slice"],
    "max_price_per_unit": 100,
}
OFFER = {"provider": "prov", "units": 10, "price_per_unit": 5}


def make_a_bit_of_everything(cli: Cli) -> None:
    cli.active("j1", "gone")
    cli.ok("compute", "cancel", "gone")
    (cli.home / "config.toml").write_text("# mine\nmin_capacity = 10\n")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return Prepared(tmp_path_factory.mktemp("made"), make_a_bit_of_everything)


@pytest.fixture
def market(cli: Cli, made: Prepared) -> Cli:
    """A home with a bit of everything in it, so that there is something to spoil."""
    made.copy_to(cli)
    return cli


def state(cli: Cli) -> dict[str, Any]:
    """What is stored, without the records of commands that came to nothing."""
    noted = ("meta", "counters", "events")
    tables = [table for table in TABLES if table.name not in noted]
    return cli.view(lambda txn: {table.name: list(txn.scan(table)) for table in tables})


def refused(
    cli: Cli, *command: str | Path, code: int = 2, says: str, stdin: str | bytes = b""
) -> Done:
    """Run a command that must fail in one clear line and leave every byte as it was.

    A policy that says no in a bulk command is written down, and nothing else is.
    """
    token = {2: "usage", 3: "not_found", 5: "refused", 6: "conflict", 8: "busy", 9: "integrity"}
    before, stored = cli.files(), state(cli)
    done = cli(*command, stdin=stdin)
    assert done.code == code, done
    first, *more = done.err.splitlines()
    assert first.startswith(f"error[{token[code]}]: ")
    assert says in first
    assert len(more) <= 1
    assert all(line.startswith("hint: ") for line in more)
    assert len(first) < 600
    assert (done.out + done.err).isprintable() or "\n" in done.err
    if code == 2 and not done.out:
        assert cli.files() == before
    else:
        assert state(cli) == stored
        after = cli.files()
        assert {name for name in after if after[name] != before.get(name)} <= {"market/data.mdb"}
    return done


def written(cli: Cli, document: Any, name: str = "given.json") -> Path:
    cli.slice()
    path = cli.directory / name
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def submit(cli: Cli, code: int = 2, *, says: str, **fields: Any) -> Done:
    path = written(cli, JOB | fields)
    return refused(cli, "compute", "submit", path, code=code, says=says)


def post(cli: Cli, code: int = 2, *, says: str, **fields: Any) -> Done:
    path = written(cli, OFFER | fields)
    return refused(cli, "compute", "offer", "post", path, code=code, says=says)


def test_what_is_right_passes(market: Cli) -> None:
    """Else the tests below could fail for another reason than the one they are about."""
    assert market("compute", "submit", written(market, JOB)).code == 0
    assert market("compute", "offer", "post", written(market, OFFER)).code == 0


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"prize": 1}, "unknown field prize"),
        ({"capability": {"gpus": 1}}, "unknown field gpus"),
        ({"slices": [{"path": "a.slice", "hash": HELLO}]}, "unknown field hash"),
    ],
)
def test_unknown_key(market: Cli, fields: dict[str, Any], says: str) -> None:
    assert "given.json" in submit(market, says=says, **fields).err
    if "slices" not in fields:
        assert "given.json" in post(market, says=says, **fields).err


@pytest.mark.parametrize(
    "text",
    [
        '{"job_id": "a", "job_id": "a"}',
        '{"capability": {"gpu": "A", "gpu": "A"}}',
        '{"job_id": "a", "j\\u006fb_id": "b"}',
    ],
)
def test_duplicated_key(market: Cli, text: str) -> None:
    path = written(market, text)
    for verb in (("compute", "submit"), ("compute", "offer", "post")):
        refused(market, *verb, path, says=f"{path}: the key ")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"job_id": 5}, ": job_id"),
        ({"buyer": None}, ": buyer"),
        ({"workload": ["transcode"]}, ": workload"),
        ({"slices": "a.slice"}, ": slices"),
        ({"slices": [5]}, ": slices[0]"),
        ({"slices": {}}, ": slices"),
        ({"slices": []}, ": slices is empty"),
        ({"slices": [""]}, ": slices[0] is empty"),
        ({"slices": [{"path": ""}]}, ": slices[0].path is empty"),
        ({"slices": [{"path": "a.slice", "reference": 5}]}, ": slices[0].reference"),
        ({"max_price_per_unit": "0100"}, ": max_price_per_unit"),
        ({"max_price_per_unit": True}, ": max_price_per_unit"),
        ({"capability": []}, ": capability"),
        ({"capability": {"cpu_cores": "four"}}, ": capability.cpu_cores"),
        ({"capability": {"gpu": 4090}}, ": capability.gpu"),
        ({"capability": {"gpu": ""}}, ": capability.gpu is empty"),
        ({"priority": "urgent"}, ": priority"),
        ({"lane": "fast"}, ": lane"),
        ({"deadline": "tomorrow"}, ": deadline"),
        ({"deadline": 2_000_000_000, "deadline_secs": 5}, "deadline and deadline_secs"),
    ],
)
def test_wrong_type_in_a_job(market: Cli, fields: dict[str, Any], says: str) -> None:
    submit(market, says=says, **fields)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"provider": 5}, ": provider"),
        ({"units": "+10"}, ": units"),
        ({"units": None}, ": units"),
        ({"price_per_unit": False}, ": price_per_unit"),
        ({"capability": {"gpu_count": [1]}}, ": capability.gpu_count"),
        ({"reputation": "good"}, ": reputation"),
        ({"job_id": 7}, ": job_id"),
    ],
)
def test_wrong_type_in_an_offer(market: Cli, fields: dict[str, Any], says: str) -> None:
    post(market, says=says, **fields)


@pytest.mark.parametrize("text", ["[5]", '"x"', "5", "true", "null", "{", '{"a": 1,}', "{]", "\0"])
def test_file_that_is_no_object(market: Cli, text: str) -> None:
    path = written(market, text)
    for verb in (("compute", "submit"), ("compute", "offer", "post")):
        refused(market, *verb, path, says=str(path))


@pytest.mark.parametrize("missing", ["job_id", "buyer", "workload", "slices", "max_price_per_unit"])
def test_missing_field(market: Cli, missing: str) -> None:
    path = written(market, {name: value for name, value in JOB.items() if name != missing})
    refused(market, "compute", "submit", path, says=f"{missing} is missing")


AMOUNTS = ["max_price_per_unit", "consumer_bond", "deadline", "deadline_secs"]
TERMS = ["units", "price_per_unit", "fee_pct_ct", "provider_bond", "consumer_bond"]


@pytest.mark.parametrize(
    "value",
    [-1, AMOUNT_MAX + 1, 2**64, -(10**30), 10**5000],
    ids=["-1", "2^63", "2^64", "-10^30", "10^5000"],
)
def test_negative_and_overflowing_numbers(market: Cli, value: int) -> None:
    import sys

    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        jobs = [json.dumps(JOB | {field: value}) for field in AMOUNTS]
        offers = [json.dumps(OFFER | {field: value}) for field in TERMS]
        capability = json.dumps(OFFER | {"capability": {"cpu_cores": value}})
    finally:
        sys.set_int_max_str_digits(limit)
    for text in jobs:
        refused(market, "compute", "submit", written(market, text), says="given.json")
    for text in [*offers, capability]:
        refused(market, "compute", "offer", "post", written(market, text), says="given.json")


@pytest.mark.parametrize("value", ["-1", str(AMOUNT_MAX + 1), "1e3", "0x10", "١٢x", "", " "])
def test_options_that_are_no_amount(market: Cli, value: str) -> None:
    refused(market, "wallet", "deposit", "alice", f"--ct={value}", says="--ct: ")
    refused(market, "compute", "offer", "post", f"--price={value}", says="--price: ")
    refused(market, "compute", "submit", f"--max-price={value}", says="--max-price: ")
    refused(market, "compute-market", "capacity", "record", "--", value, says="N: ")


def test_job_whose_price_overflows(market: Cli) -> None:
    market.post(price=AMOUNT_MAX, units=1, provider="dear")
    big = written(market, JOB | {"slices": ["a.slice", "a.slice"]}, "two.json")
    market.ok("compute", "offer", "withdraw", "o-1")
    market.post("--offer-id", "two", price=AMOUNT_MAX, units=2, provider="dear")
    refused(
        *(market, "compute", "submit", big, f"--max-price={AMOUNT_MAX}"),
        code=5,
        says="the price of the whole job",
    )


@pytest.mark.parametrize("value", ["5.0", "5.5", "1e2", "1E0", "NaN", "Infinity", "-Infinity"])
def test_float_for_money(market: Cli, value: str) -> None:
    for field in AMOUNTS:
        text = json.dumps(JOB | {field: "?"}).replace('"?"', value)
        refused(market, "compute", "submit", written(market, text), says="given.json")
    for field in TERMS:
        text = json.dumps(OFFER | {field: "?"}).replace('"?"', value)
        refused(market, "compute", "offer", "post", written(market, text), says="given.json")
    refused(market, "wallet", "deposit", "alice", f"--ct={value}", says="--ct: ")


def test_percentage_over_a_hundred(market: Cli) -> None:
    post(market, 5, says="invalid fee_pct_ct", fee_pct_ct=101)
    terms = ("--provider", "p", "--units", "1", "--price", "1", "--fee-pct-ct", "101")
    refused(market, "compute", "offer", "post", *terms, code=5, says="invalid fee_pct_ct")


@pytest.mark.parametrize(
    "value",
    [
        *("nan", "inf", "1.01", "0.499999", "0.5000001", "0", "-0.5", "1e-1", "½", "", " 0.5"),
        *("0.5 ", "1.", ".5", "1,0", "true", "one", 2, 0.49, 1.0000001, True, None, [], {}),
    ],
)
def test_multiplier_that_is_none(market: Cli, value: Any) -> None:
    says = "invalid reputation multiplier"
    post(market, 5, says=says, reputation_multiplier=value)
    if isinstance(value, str):
        terms = ("--provider", "p", "--units", "1", "--price", "1", f"--multiplier={value}")
        refused(market, "compute", "offer", "post", *terms, code=5, says=says)


def test_multiplier_with_seven_decimals_in_a_file(market: Cli) -> None:
    for value in ("0.5000001", "0.1234567e0", "NaN"):
        text = json.dumps(OFFER | {"reputation_multiplier": "?"}).replace('"?"', value)
        done = market("compute", "offer", "post", written(market, text))
        assert done.code in (2, 5)
        assert done.err.startswith("error[")
    assert len(market.document("compute", "offer", "list")) == 1


def test_empty_slice(market: Cli) -> None:
    empty = market.slice("empty.slice", b"")
    submit(market, 5, says=f"{empty} is empty", slices=["a.slice", "empty.slice"])
    with_reference = [{"path": "empty.slice", "reference": HELLO}]
    submit(market, 5, says=f"{empty} is empty", slices=with_reference)


@pytest.mark.parametrize("reference", [None, HELLO])
def test_missing_slice(market: Cli, reference: str | None) -> None:
    entry = {"path": "missing.slice"} | ({"reference": reference} if reference else {})
    submit(market, says=f"{market.directory}/missing.slice: no such file", slices=[entry])
    refused(market, "compute", "run", "missing.slice", says="missing.slice: no such file")


@pytest.mark.parametrize("reference", [None, HELLO])
def test_directory_as_slice(market: Cli, reference: str | None) -> None:
    (market.directory / "folder").mkdir()
    entry = {"path": "folder"} | ({"reference": reference} if reference else {})
    submit(market, says="folder", slices=[entry])
    refused(market, "compute", "run", "folder", says="folder")


@pytest.mark.parametrize("reference", [None, HELLO])
def test_fifo_as_slice(market: Cli, reference: str | None) -> None:
    os.mkfifo(market.directory / "pipe")
    entry = {"path": "pipe"} | ({"reference": reference} if reference else {})
    submit(market, says="pipe", slices=[entry])
    refused(market, "compute", "run", "pipe", says="pipe")


def test_fifo_and_directory_as_job_file(market: Cli) -> None:
    os.mkfifo(market.directory / "pipe.json")
    # One that nobody writes to has nothing in it, and is not waited for.
    nothing = "nothing given, nothing done\n"
    assert market("compute", "submit", "pipe.json") == (0, "", nothing)
    refused(market, "compute", "submit", str(market.directory), says="is a directory")
    refused(market, "compute", "offer", "post", "missing.json", says="missing.json: no such file")


def test_slice_changed_after_submission(market: Cli) -> None:
    market.submit("own", slices=[market.slice("own.slice")])
    market.slice("own.slice", b"changed")
    says = f"slice 0 of job own has changed since submission: {market.directory}/own.slice"
    done = market("compute", "execute", "own")
    assert (done.code, done.out) == (9, f"{says}\n")
    assert (market.job("own")["cause"], market.score()) == ("slice_changed", 0)


@pytest.mark.parametrize("digest", ["", "zz" * 32, HELLO[:-2], HELLO + "00", "0x" + HELLO[2:]])
def test_bad_hex(market: Cli, digest: str) -> None:
    refused(market, "compute", "prove", "j1", "0", digest, says="is not an output")
    reference = [{"path": "a.slice", "reference": digest}]
    submit(market, says=": slices[0].reference", slices=reference)


BAD_IDS = [
    "",
    " ",
    "a b",
    " a",
    "a\n",
    "a\nb",
    "a\tb",
    "a/b",
    "../a",
    ".",
    "x" * 129,
    "é",
    "ａ",
    "a\u200b",
    "a\x1b[31m",
    "a\x00b",
    "#a",
    "a*",
    "$(id)",
]


@pytest.mark.parametrize("bad", BAD_IDS, ids=ascii)
def test_bad_id(market: Cli, bad: str) -> None:
    if "\0" not in bad:  # No shell can pass one on.
        for command in (
            ("compute", "status", bad),
            ("compute", "cancel", bad),
            ("compute", "cancel", "j1", bad),
            ("compute", "execute", bad),
            ("compute", "wait", bad),
            ("compute", "prove", bad, "0", HELLO),
            ("compute", "requirements", bad),
            ("compute", "offer", "show", bad),
            ("compute", "offer", "withdraw", bad),
            ("wallet", "deposit", bad, "--ct", "1"),
            ("wallet", "withdraw", "alice", "--ct", "1", "--key", bad),
            ("wallet", "balance", bad),
            ("wallet", "history", bad),
            ("net", "reputation", "show", bad),
        ):
            done = refused(market, *command, says=" ")
            assert done.out == ""
    for field in ("job_id", "buyer"):
        submit(market, says=f"given.json: {field} ", **{field: bad})
    for field in ("offer_id", "provider", "job_id"):
        post(market, says=f"given.json: {field} ", **{field: bad})


def test_longest_id_passes(market: Cli) -> None:
    longest = "x" * 128
    market.ok("wallet", "deposit", longest, "--ct", "1")
    assert market.submit(longest)["job_id"] == longest
    market.ok("compute", "cancel", longest)


@pytest.mark.parametrize("fields", [{"deadline": 5}, {"deadline": 0}])
def test_deadline_in_the_past(market: Cli, fields: dict[str, Any]) -> None:
    submit(market, 5, says=f"deadline {fields['deadline']} has passed", **fields)


def test_deadline_one_second_ago(market: Cli) -> None:
    submit(market, 5, says="has passed", deadline=market.now - 1)
    assert (
        market("compute", "submit", written(market, JOB | {"deadline": market.now + 60})).code == 0
    )


def test_buyer_who_is_the_provider(market: Cli) -> None:
    submit(market, 5, says="no offer of another provider", buyer="prov")


def test_same_id_with_other_content(market: Cli) -> None:
    submit(market, 6, says="job j1 exists with buyer alice, not bob", job_id="j1", buyer="bob")
    says = "offer o-1 exists with units 1000, not 10"
    post(market, 6, says=says, offer_id="o-1")


@pytest.mark.parametrize("pattern", ["[", '{"a":', '[{"a":'])
def test_json_nested_ten_thousand_deep(market: Cli, pattern: str) -> None:
    path = written(market, pattern * 10_000)
    for verb in (("compute", "submit"), ("compute", "offer", "post")):
        refused(market, *verb, path, says=str(path))
    closing = {"[": "]", '{"a":': "}", '[{"a":': "}]"}[pattern]
    text = '{"capability": ' + pattern * 10_000 + "1" + closing * 10_000 + "}"
    refused(market, "compute", "submit", written(market, text), says="given.json")


@pytest.mark.parametrize("text", [b'{"job_id": "\xff"}', b"\xff\xfe{\0}\0", b"\x80"])
def test_invalid_utf_8(market: Cli, text: bytes) -> None:
    path = market.directory / "given.json"
    path.write_bytes(text)
    for verb in (("compute", "submit"), ("compute", "offer", "post")):
        refused(market, *verb, path, says="is not UTF-8")
        refused(market, *verb, "-", says="is not UTF-8", stdin=text)
    done = market("compute", "cancel", "-", "-n", stdin=b"j1\n\xff\n")
    assert (done.code, done.out.splitlines()[1]) == (7, "dry_run: stdin line 2 is not UTF-8")


def test_lone_surrogates_in_json(market: Cli) -> None:
    refused(
        market, "compute", "submit", written(market, '{"job_id": "\\ud800"}'), says="given.json"
    )
    path = written(market, json.dumps(JOB | {"slices": ["\ud800.slice"]}))
    refused(market, "compute", "submit", path, says="")
    path = written(market, json.dumps(JOB | {"workload": "\ud800"}))
    refused(market, "compute", "submit", path, says="")


BAD = os.fsdecode(b"bad\xff")


@pytest.mark.parametrize(
    ("command", "named"),
    [
        (
            (
                *("compute", "submit", "--job-id", "j9", "--buyer", "alice"),
                *("--workload", "transcode", "--max-price", "100", "--slice", BAD),
            ),
            "options: the slice {directory}/bad\\xff",
        ),
        (("compute", "list", "--home", BAD), "the home directory {directory}/bad\\xff"),
        (("compute", "run", BAD, "--home", BAD), "the home directory {directory}/bad\\xff"),
        (("state", "init", "--home", BAD), "the home directory {directory}/bad\\xff"),
        (("state", "backup", BAD + "2"), "the directory bad\\xff2"),
        (("compute-market", "settle", "dry-run", "--reason", BAD), "--reason bad\\xff"),
    ],
)
def test_name_that_is_not_utf_8(market: Cli, command: tuple[str, ...], named: str) -> None:
    market.slice(BAD)
    text = f"{named.format(directory=market.directory)} is not UTF-8"
    before = sorted(os.listdir(market.directory))
    assert refused(market, *command, says=text).err == f"error[usage]: {text}\n"
    assert refused_as_json(market, *command)["message"] == text
    assert sorted(os.listdir(market.directory)) == before


def refused_as_json(cli: Cli, *command: str) -> dict[str, Any]:
    done = cli(*command, "--json")
    assert (done.code, done.out) == (2, "")
    return done.error


@pytest.mark.parametrize("fields", [{}, {"slices": [{"path": "a.slice", "reference": HELLO}]}])
def test_job_file_in_a_directory_that_is_not_utf_8(
    market: Cli, fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (market.directory / BAD).mkdir()
    written(market, JOB | fields, f"{BAD}/given.json")
    text = f"the slice {market.directory}/bad\\xff/a.slice is not UTF-8"
    path = os.path.join(BAD, "given.json")
    refused(market, "compute", "submit", path, says=f"error[usage]: bad\\xff/given.json: {text}")
    monkeypatch.chdir(market.directory / BAD)
    refused(market, "compute", "submit", "given.json", says=f"error[usage]: given.json: {text}")


@pytest.mark.parametrize(
    "command", [("compute", "submit"), ("compute", "offer", "post"), ("compute", "run")]
)
def test_missing_file_whose_name_is_not_utf_8(market: Cli, command: tuple[str, ...]) -> None:
    refused(market, *command, f"{BAD}.json", says=": no such file")
    error = refused_as_json(market, *command, f"{BAD}.json")
    assert error["message"].startswith(("bad\\xff.json: ", "'bad\\udcff.json': "))


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_home_by_variable_that_is_not_utf_8(
    cli: Cli, form: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    cli.slice()
    monkeypatch.setenv("TB_HOME", BAD)
    short = cli.process("compute", "run", "a.slice", *form)
    assert (short.code, short.out) == (2, "")
    assert "bad\\xff is not UTF-8" in (short.error["message"] if form else short.err)
    assert cli("compute", "run", "a.slice", *form) == short


def test_config_with_an_unknown_key(market: Cli) -> None:
    path = market.home / "config.toml"
    path.write_text("# mine\nmin_capcity = 10\n")
    before = market.files()
    for command in (("compute", "cancel", "j1"), ("compute-market", "params"), ("metrics",)):
        done = market(*command)
        assert done == (
            2,
            "",
            f"error[usage]: {path}:2: unknown key min_capcity\nhint: did you mean min_capacity?\n",
        )
    assert market.files() == before


def test_config_that_is_no_file_is_not_waited_for(market: Cli) -> None:
    path = market.home / "config.toml"
    path.unlink()
    os.mkfifo(path)
    for command in (("compute", "cancel", "j1"), ("compute", "run", "a.slice")):
        done = market.process(*command)
        assert done == (2, "", f"error[usage]: {path}: not a regular file\n")
    path.unlink()


def test_home_that_is_a_file(cli: Cli) -> None:
    cli.home.write_text("mine")
    for command in (("compute", "list"), ("wallet", "deposit", "a", "--ct", "1")):
        done = cli(*command)
        assert (done.code, done.out) == (2, "")
        assert done.err.startswith(f"error[usage]: {cli.home} is not a directory")
    assert cli.home.read_text() == "mine"


def test_home_below_a_file(cli: Cli) -> None:
    (cli.directory / "file").write_text("mine")
    done = cli("state", "init", "--home", cli.directory / "file" / "home")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error[usage]: ")


@contextmanager
def mounted(path: Path, *options: str) -> Iterator[None]:
    """A small file system in memory, where that is permitted."""
    path.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("mount is not installed")
    if done.returncode:
        pytest.skip(f"cannot mount: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def test_home_that_is_read_only(market: Cli, tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    with mounted(mount, "size=64m"):
        market.ok("state", "backup", mount / "home")
        subprocess.run(["mount", "-o", "remount,ro", str(mount)], check=True)
        before = (mount / "home" / "market" / "data.mdb").read_bytes()
        there = ("--home", mount / "home")
        # Readers read, writers are told.
        assert market.ok(*there, "compute", "list") == market.ok("compute", "list")
        assert market.ok(*there, "compute-market", "stats")
        for command in (
            ("compute", "cancel", "j1"),
            ("wallet", "deposit", "a", "--ct", "1"),
            ("compute", "offer", "withdraw", "o-1"),
        ):
            done = market(*there, *command)
            assert (done.code, done.out) == (2, "")
            assert done.err.startswith(f"error[usage]: {mount}/home/market is read-only\nhint: ")
        assert (mount / "home" / "market" / "data.mdb").read_bytes() == before
        done = market("--home", mount / "new", "state", "init")
        assert (done.code, done.out) == (2, "")
        assert done.err.startswith(f"error[usage]: {mount}/new: read-only file system\n")
        for home in ("home", "new"):
            for dry in ((), ("-n",)):
                done = market("--home", mount / home, "compute", "calibrate", *dry)
                assert (done.code, done.out) == (2, "")
                text = f"error[usage]: {mount}/{home}: read-only file system\n"
                assert done.err.startswith(text)


def test_home_on_a_full_disk(market: Cli, tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    with mounted(mount, "size=1m"):
        market.ok("state", "backup", mount / "home")
        there = ("--home", mount / "home")
        market.ok(*there, "wallet", "deposit", "a", "--ct", "1")
        ballast = mount / "ballast"
        with ballast.open("wb", buffering=0) as file:
            # The first write takes all there is, the second finds nothing left.
            file.write(bytes(2**20))
            with pytest.raises(OSError, match="No space"):
                file.write(b"x")
        offers = "".join(json.dumps(OFFER | {"provider": f"p{n}"}) + "\n" for n in range(500))
        command = (*there, "compute", "offer", "post", "-", "--atomic")
        done = market(*command, stdin=offers)
        assert (done.code, done.out) == (8, "")
        assert done.err.startswith("error[busy]: ")
        assert "hint: free some disk space and try again\n" in done.err
        ballast.unlink()
        assert len(market.document(*there, "compute", "offer", "list")) == 1
        assert market(*command, stdin=offers).code == 0
        assert market.ok(*there, "compute-market", "audit") == "receipts 0 invalid 0\n"


def test_store_of_a_newer_schema(market: Cli) -> None:
    market.audited = False
    env = lmdb.open(str(market.home / "market"), max_dbs=64, map_size=2**30)
    with env.begin(write=True, db=env.open_db(b"meta", create=False)) as txn:
        txn.put(b"schema", META.sealed(b"schema", bytes([99])))
    env.close()
    before = market.files()
    for command in (("compute", "list"), ("compute", "cancel", "j1"), ("metrics",)):
        done = market(*command)
        assert (done.code, done.out) == (9, "")
        first, hint = done.err.splitlines()
        assert first.startswith(
            f"error[integrity]: {market.home}/market was written with schema 99"
        )
        assert hint.startswith("hint: ")
    assert market.files() == before


def truncated(data: bytes) -> bytes:
    return data[: len(data) // 2 // 4096 * 4096]


def odd(data: bytes) -> bytes:
    return data[:5000]


def garbage(data: bytes) -> bytes:
    return bytes(range(256)) * (len(data) // 256)


def zeros(data: bytes) -> bytes:
    return bytes(len(data))


def emptied(data: bytes) -> bytes:
    return b""


@pytest.mark.parametrize("damage", [truncated, odd, garbage, zeros, emptied])
def test_damaged_data_file(market: Cli, damage: Callable[[bytes], bytes]) -> None:
    market.audited = False
    for number in range(20):
        market.submit(f"j{number:02}")
    market.data.write_bytes(damage(market.data.read_bytes()))
    before = market.files()
    # In processes of their own: reading past the end of the file would kill this one.
    for command in (("compute", "list"), ("compute", "cancel", "j1"), ("state", "check")):
        done = market.process(*command)
        assert done.code == 9, done
        if damage is truncated and command == ("state", "check"):
            assert "is beyond EOF" in done.out  # It names the pages.
            assert done.err == ""
            continue
        assert done.out == ""
        assert done.err.startswith("error[integrity]: ")
        assert str(market.home) in done.err
        assert "Traceback" not in done.err
    assert market.files() == before


@pytest.mark.parametrize("closed", [">&-", "<&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("command", ["compute list", "compute cancel -", "nonsense"])
def test_closed_descriptors(market: Cli, closed: str, command: str) -> None:
    """Not a pipe that nobody reads, but no stdout at all, as some supervisors start programs."""
    before = market.files()
    done = subprocess.run(
        ["bash", "-c", f'"$0" -m tb_cli.entry {command} {closed}', market.command()[0]],
        input="nope\n",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == {"compute list": 0, "nonsense": 2}.get(
        command, 2 if "<&-" in closed else 3
    )
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") <= 2
    if command != "compute cancel -":
        assert market.files() == before


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_full_stdout(market: Cli, unbuffered: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("/dev/full does not exist here")
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            market.command("compute", "list"), stdout=full, stderr=subprocess.PIPE, timeout=60
        )
    assert done.stderr == b"error[busy]: standard output: no space left on device\n"
    assert done.returncode == 8
