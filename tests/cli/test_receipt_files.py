"""`compute-market receipts export|verify`."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from compute_market.signatures import keys
from tests.support.cli import Cli
from tests.support.receipt_file import KEY, OTHER_KEY, chained, receipt, signed
from tests.support.state import put_payload
from tests.support.verbs import DATA

pytest_plugins = ("tests.support.cli",)

RECEIPTS = ("compute-market", "receipts")
EXPORT = (*RECEIPTS, "export")
VERIFY = (*RECEIPTS, "verify")
# A file as the first release with such files wrote it, of the key whose seed are 32 zero bytes.
FIRST_FORMAT = DATA / "receipts-1.jsonl"


@pytest.fixture
def three(cli: Cli) -> Cli:
    """A market with three receipts and the key `node`."""
    cli.active("a", "b", "c")
    cli.ok("compute", "execute", "a", "b", "c")
    cli.ok("key", "new", "node")
    return cli


def key_id(cli: Cli, name: str = "node") -> str:
    found: str = cli.document("key", "show", name)["key_id"]
    return found


def root(cli: Cli) -> str:
    found: str = cli.document("state", "root")["root"]
    return found


def test_export_writes_a_file_that_verifies(three: Cli) -> None:
    out = three.ok(*EXPORT, "r.jsonl", "--key", "node")
    assert out == f"wrote 3 receipts to r.jsonl, root {root(three)}\n"
    assert (three.directory / "r.jsonl").stat().st_mode & 0o777 == 0o600
    done = three(*VERIFY, "r.jsonl")
    assert (done.code, done.out) == (0, f"verified 3 receipts, root {root(three)}\n")
    own = "the key is the file's own, {}: --key says whose receipts they must be\n"
    assert done.err == own.format(key_id(three))
    out = three.ok(*VERIFY, "r.jsonl", "--key", "node")
    assert out == f"{done.out[:-1]}, key {key_id(three)}\n"


def test_documents_say_where_the_file_begins_and_ends(three: Cli) -> None:
    head = three.document(*EXPORT, "r.jsonl", "--key", "node")
    found = three.document(*VERIFY, "r.jsonl")
    assert list(found) == [
        *("verified", "root", "from_seq", "to_seq", "key", "market_id", "from_link", "to_link")
    ]
    assert (found["verified"], found["from_seq"], found["to_seq"]) == (3, 1, 3)
    assert (found["root"], found["key"]) == (root(three), key_id(three))
    assert found["market_id"] == three.document("chain", "status")["market_id"]
    assert head == {
        "path": "r.jsonl",
        "receipts": 3,
        **{name: found[name] for name in ("root", "from_seq", "to_seq", "to_link", "key")},
    }


def test_export_to_a_pipe_is_the_file(three: Cli) -> None:
    three.ok(*EXPORT, "r.jsonl", "--key", "node")
    written = (three.directory / "r.jsonl").read_text().splitlines()
    for target in (("-",), ()):
        piped = three.ok(*EXPORT, *target, "--key", "node")
        # No two signatures are the same.
        assert piped.splitlines()[:-1] == written[:-1]
    done = three(*VERIFY, "-", "--key", "node", stdin=piped)
    assert (done.code, done.err) == (0, "")
    done = three(*EXPORT, "-", "--key", "node", "--json")
    assert (done.code, done.out, done.error["error"]) == (2, "", "usage")


def test_export_goes_on_over_the_page(three: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from tb_cli.frame import paging

    for page in (1, 2, 3, 4):
        monkeypatch.setattr(paging, "PAGE", page)
        piped = three.ok(*EXPORT, "--key", "node")
        assert len(piped.splitlines()) == 5
        assert three(*VERIFY, "-", stdin=piped).code == 0


def test_export_of_an_empty_market_verifies(cli: Cli) -> None:
    cli.ok("key", "new", "node")
    assert cli.ok(*EXPORT, "r.jsonl", "--key", "node").startswith("wrote 0 receipts to r.jsonl, ")
    found = cli.document(*VERIFY, "r.jsonl")
    assert (found["verified"], found["from_seq"], found["to_seq"]) == (0, 1, 0)


def test_ranges_follow_each_other_by_their_links(three: Cli) -> None:
    first = three.document(*EXPORT, "1.jsonl", "--key", "node", "--to", "2")
    assert (first["receipts"], first["to_seq"]) == (2, 2)
    second = three.document(*EXPORT, "2.jsonl", "--key", "node", "--from", "3")
    assert (second["receipts"], second["from_seq"]) == (1, 3)
    three.ok(*VERIFY, "2.jsonl", "--key", "node", "--from-link", first["to_link"])
    done = three(*VERIFY, "2.jsonl", "--from-link", second["to_link"], "--json")
    error = done.error
    assert (done.code, error["line"], error["reason"]) == (9, 1, "bad_chain")
    # A file of what came since may be empty.
    assert three.document(*EXPORT, "3.jsonl", "--key", "node", "--from", "4")["receipts"] == 0


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (("--from", "5"), 3, "error[not_found]: there is no receipt 5: the last one is 3\n"),
        (("--to", "4"), 3, "error[not_found]: there is no receipt 4: the last one is 3\n"),
        (("--from", "3", "--to", "2"), 2, "error[usage]: receipt 2 comes before receipt 3\n"),
        (("--from", "0"), 2, "error[usage]: --from: "),
        (("--key", "nobody"), 3, "error[not_found]: no key nobody\n"),
        (("--key", "friend"), 3, "error[not_found]: key friend is the public key of somebody"),
    ],
)
def test_export_that_cannot_be_leaves_what_was_there(
    three: Cli, options: tuple[str, ...], code: int, says: str
) -> None:
    (three.directory / "friend").write_bytes(keys.public_text(OTHER_KEY))
    three.ok("key", "import-public", "friend", "friend")
    path = three.directory / "r.jsonl"
    path.write_text("before")
    key = () if "--key" in options else ("--key", "node")
    done = three(*EXPORT, "r.jsonl", *key, *options)
    assert (done.code, done.out) == (code, "")
    assert done.err.startswith(says)
    assert path.read_text() == "before"


def test_export_needs_a_key(three: Cli) -> None:
    done = three(*EXPORT, "r.jsonl")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error[usage]: --key is missing\n")


def test_export_of_a_damaged_receipt_is_refused_and_writes_nothing(
    three: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    from compute_market.store.schema import RECEIPTS as TABLE
    from tb_cli.frame import paging

    three.audited = False
    monkeypatch.setattr(paging, "PAGE", 1)
    key = bytes.fromhex(three.document(*RECEIPTS, "show", "b")["idempotency_key"])
    three.update(lambda txn: put_payload(txn, TABLE, key, b"\xc1"))
    done = three(*EXPORT, "r.jsonl", "--key", "node")
    assert (done.code, done.out) == (9, "")
    assert done.err.startswith("error[integrity]: receipt 2 cannot be exported: it is damaged\n")
    assert sorted(path.name for path in three.directory.iterdir()) == ["a.slice", "home"]


def test_export_that_is_killed_leaves_what_was_there(three: Cli) -> None:
    """The name is that of a whole file or of none, whenever the signal comes."""
    path = three.directory / "r.jsonl"
    program = (
        "import os, signal, sys\n"
        "from tb_cli.frame.results import Result\n"
        "def killed(self, text): os.kill(os.getpid(), signal.SIGKILL)\n"
        "Result.write = killed\n"
        "from tb_cli.entry import call\n"
        "call(sys.argv[1:])\n"
    )
    words = [sys.executable, "-c", program, *EXPORT, str(path), "--key", "node"]
    assert subprocess.run(words, timeout=60).returncode == -signal.SIGKILL
    assert not path.exists()
    three.ok(*EXPORT, path, "--key", "node")
    before = path.read_bytes()
    assert subprocess.run(words, timeout=60).returncode == -signal.SIGKILL
    assert path.read_bytes() == before


def test_export_beside_a_writer_is_one_state(three: Cli) -> None:
    """What is read while others issue receipts ends where it began to be read, and verifies."""
    three.active(*(f"more-{n}" for n in range(20)))
    writer = three.start("compute", "execute", *(f"more-{n}" for n in range(20)))
    found = []
    while writer.poll() is None or not found:
        done = three.process(*EXPORT, "--key", "node")
        assert (done.code, done.err) == (0, "")
        found.append(three.process(*VERIFY, "-", "--json", stdin=done.out).json)
        assert found[-1]["verified"] == done.out.count('{"seq":')
        time.sleep(0.01)
    assert [each["to_seq"] for each in found] == sorted(each["to_seq"] for each in found)
    writer.communicate()


def test_verify_needs_no_home(tmp_path: Path) -> None:
    """Nor any variable that could name one."""
    source = Path(__file__).resolve().parents[2]
    path = os.pathsep.join((str(source), str(source / "cli")))
    done = subprocess.run(
        [sys.executable, "-m", "tb_cli.entry", *VERIFY, FIRST_FORMAT, "--key", KEY.key_id.hex()],
        env={"PYTHONPATH": path},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("verified 3 receipts, root ")
    assert list(tmp_path.iterdir()) == []


def test_key_goes_by_file_by_name_and_by_id(cli: Cli) -> None:
    for name, key in (("right.pub", KEY), ("wrong.pub", OTHER_KEY)):
        (cli.directory / name).write_bytes(keys.public_text(key))
    cli.ok("key", "import-public", "right", "right.pub")
    cli.ok("key", "import-public", "wrong", "wrong.pub")
    for given in ("right.pub", "right", KEY.key_id.hex(), KEY.key_id.hex().upper()):
        assert cli.ok(*VERIFY, FIRST_FORMAT, "--key", given).startswith("verified 3 receipts, ")
    for given in ("wrong.pub", "wrong", OTHER_KEY.key_id.hex()):
        error = cli(*VERIFY, FIRST_FORMAT, "--key", given, "--json").error
        assert (error["line"], error["reason"]) == (1, "bad_signature")
    for given, code in (("nobody", 3), ("z" * 64, 2), ("a/b", 2), ("", 2), (str(FIRST_FORMAT), 9)):
        done = cli(*VERIFY, FIRST_FORMAT, "--key", given)
        assert (done.code, done.out) == (code, ""), given


def test_file_that_lies_around_stands_for_no_id_and_no_name(cli: Cli) -> None:
    (cli.directory / "right.pub").write_bytes(keys.public_text(KEY))
    cli.ok("key", "import-public", "right", "right.pub")
    cli.ok("key", "import-public", "x.pub", "right.pub")
    for name in (KEY.key_id.hex(), OTHER_KEY.key_id.hex(), "right", "x.pub", "other"):
        (cli.directory / name).write_bytes(keys.public_text(OTHER_KEY))
    for given in (KEY.key_id.hex(), "right", "x.pub"):
        found = cli.ok(*VERIFY, FIRST_FORMAT, "--key", given)
        assert found.endswith(f", key {KEY.key_id.hex()}\n")
    assert cli(*VERIFY, FIRST_FORMAT, "--key", "other").code == 3
    for given in (OTHER_KEY.key_id.hex(), "./right", "./x.pub"):
        assert cli(*VERIFY, FIRST_FORMAT, "--key", given).code == 9


@pytest.mark.parametrize("given", [KEY.key_id.hex(), "right.pub", "./right"])
def test_verify_needs_no_user_with_a_home(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    def nobody(uid: int) -> None:
        raise KeyError(uid)

    for name in ("right.pub", "right"):
        (cli.directory / name).write_bytes(keys.public_text(KEY))
    monkeypatch.delenv("HOME")
    monkeypatch.delenv("TB_HOME")
    monkeypatch.setattr("pwd.getpwuid", nobody)
    cli.ok(*VERIFY, FIRST_FORMAT, "--key", given)
    done = cli(*VERIFY, FIRST_FORMAT, "--key", "right")
    assert (done.code, done.err.splitlines()[0]) == (2, "error[usage]: no home directory is known")


def test_wrong_line_is_told(cli: Cli) -> None:
    lines = signed(list(chained([receipt(1), receipt(2), receipt(3)])))
    wrong = b"".join([*lines[:2], lines[3], lines[2], lines[4]])
    done = cli(*VERIFY, "-", stdin=wrong)
    message = "stdin line 3: receipt 3 stands where receipt 2 belongs"
    assert done == (9, "", f"error[integrity]: {message}\n")
    assert cli(*VERIFY, "-", "--json", stdin=wrong).error == {
        "error": "integrity",
        "reason": "bad_chain",
        "message": message,
        "hint": None,
        "retryable": False,
        "line": 3,
    }


@pytest.mark.parametrize("given", ["ab", "z" * 64, "ab" * 33, "ab " * 22, ""])
def test_link_that_is_none_is_usage(cli: Cli, given: str) -> None:
    done = cli(*VERIFY, FIRST_FORMAT, "--from-link", given)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error[usage]: --from-link: ")


@pytest.mark.parametrize("source", ["nothing", "."])
def test_file_that_cannot_be_read_is_usage(cli: Cli, source: str) -> None:
    done = cli(*VERIFY, source)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"error[usage]: {source}: ")


def test_line_that_never_ends_is_refused_at_once(cli: Cli) -> None:
    """Two gigabytes of it are no more work than one line that is too long."""
    with (cli.directory / "r.jsonl").open("wb") as file:
        file.write(FIRST_FORMAT.read_bytes().splitlines(keepends=True)[0])
        file.truncate(2 * 2**30)
    error = cli(*VERIFY, "r.jsonl", "--json").error
    assert (error["line"], error["reason"]) == (2, "malformed")
    assert error["message"] == "r.jsonl line 2: the line has more than 65536 bytes"


def test_export_is_written_through_to_a_fifo_and_a_device(three: Cli) -> None:
    fifo = three.directory / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        three.ok(*EXPORT, fifo, "--key", "node")
        assert three(*VERIFY, "-", "--key", "node", stdin=os.read(reader, 2**20)).code == 0
    finally:
        os.close(reader)
    done = three(*EXPORT, "/dev/full", "--key", "node")
    assert (done.code, done.out) == (8, "")
    assert done.err.startswith("error[busy]: /dev/full: no space left on device\n")
