"""The file of the price board: its bytes, what may lie in its place, and how it is saved."""

import fcntl
import os
from binascii import crc32
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compute_market import home
from compute_market.clock import Reading
from compute_market.errors import ConflictError, IntegrityError, UsageError
from compute_market.offers import price_file
from compute_market.price_records import Board
from tests.offers.test_price_window import ends, file_of, price, window
from tests.support.market import Market

PRICES = st.lists(st.integers(0, 2**64 - 1), max_size=20)
EXAMPLE = bytes.fromhex(
    "50425244 0200 0200 0300000000000000 02000000 01000000"
    "0500000000000000 0700000000000000 0900000000000000"
)
SEALED = EXAMPLE + crc32(EXAMPLE).to_bytes(4, "little")


def fields(found: Board) -> tuple[object, ...]:
    return found.outcome, found.seq, found.industrial, found.consumer


def test_file_has_these_bytes() -> None:
    board = Board("success", "", 3, (5, 7), (9,))
    assert price_file.encode(board) == SEALED
    assert fields(price_file.decode(SEALED)) == fields(board)


@given(PRICES, PRICES, st.integers(0, 2**64 - 1))
def test_file_reads_back_as_it_was_written(one: list[int], other: list[int], seq: int) -> None:
    board = Board("success", "", seq, tuple(one), tuple(other))
    content = price_file.encode(board)
    assert len(content) == 28 + 8 * (len(one) + len(other))
    assert fields(price_file.decode(content)) == fields(board)


def test_every_flipped_bit_and_every_missing_byte_is_damage() -> None:
    flipped = [
        SEALED[:place] + bytes((SEALED[place] ^ 1 << bit,)) + SEALED[place + 1 :]
        for place in range(len(SEALED))
        for bit in range(8)
    ]
    cut = [SEALED[:length] for length in range(len(SEALED))]
    longer = [SEALED + b"\0", SEALED * 2]
    for content in (*flipped, *cut, *longer):
        with pytest.raises(IntegrityError):
            price_file.decode(content)


def sealed(body: bytes) -> bytes:
    return body + crc32(body).to_bytes(4, "little")


def big_endian(path: Path) -> None:
    body = b"PBRD\0\2\0\2" + bytes(7) + b"\3\0\0\0\1\0\0\0\0" + bytes(7) + b"\5"
    path.write_bytes(body + crc32(body).to_bytes(4, "big"))


def written(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def unreadable(path: Path) -> None:
    path.write_bytes(SEALED)
    path.chmod(0)


# What is wrong, how it comes about, and whether the next save takes its place.
IN_THE_PLACE = {
    "empty": ("it is empty", written(b""), True),
    "cut off": ("it is not as long as it says", written(SEALED[:-1]), True),
    "cut off in its head": ("it is cut off", written(SEALED[:20]), True),
    "cut off in its magic": ("it is cut off", written(SEALED[:3]), True),
    "text": ("it is no price board", written(b"[net]\n" * 10), True),
    "short text": ("it is no price board", written(b"x"), True),
    "version 1": ("it is of version 1, not 2", written(sealed(b"PBRD\1" + EXAMPLE[5:])), True),
    "version 3": ("it is of version 3, not 2", written(sealed(b"PBRD\3" + EXAMPLE[5:])), True),
    "three lanes": ("it is not as long as it says", written(EXAMPLE[:6] + b"\3" * 60), True),
    "big-endian": ("it is of version 512, not 2", big_endian, True),
    "flipped": ("the checksum is another", written(SEALED[:30] + b"x" + SEALED[31:]), True),
    "huge": ("more than 160028 bytes", lambda path: truncated(path, 2**40), True),
    "directory": ("is a directory", lambda path: path.mkdir(), False),
    "FIFO": ("not a regular file", lambda path: os.mkfifo(path), False),
    "link": (home.LINK, lambda path: path.symlink_to("/etc/hostname"), False),
    "link to nothing": (home.LINK, lambda path: path.symlink_to("nothing"), False),
}


def truncated(path: Path, length: int) -> None:
    with path.open("wb") as file:
        file.truncate(length)


@pytest.mark.parametrize("name", IN_THE_PLACE)
def test_whatever_lies_there_the_board_starts_empty(market: Market, name: str) -> None:
    problem, make, is_replaced = IN_THE_PLACE[name]
    price(market, "industrial", 1)
    ends(market)
    path = file_of(market)
    path.unlink()
    make(path)
    market.reopen()
    assert window(market) == []
    board = market.opened.engine.board
    assert board is not None
    assert (board.outcome, board.problem) == ("damaged", problem)

    price(market, "industrial", 2)
    if is_replaced:
        saved = market.opened.prices.save()
        assert saved is not None
        assert (saved.outcome, saved.problem) == ("success", problem)
    else:
        before = os.lstat(path)
        with pytest.raises(OSError):  # noqa: PT011 - each has its own words
            market.opened.prices.save()
        assert os.path.samestat(os.lstat(path), before)
    assert window(market) == [2]
    assert not list(path.parent.glob("*.tmp"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_file_that_may_not_be_read_is_damaged(market: Market) -> None:
    file_of(market).parent.mkdir()
    unreadable(file_of(market))
    assert window(market) == []
    assert market.opened.engine.board is not None
    assert market.opened.engine.board.problem == "permission denied"


def test_directory_that_is_a_link_is_not_followed(market: Market, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    file_of(market).parent.symlink_to(tmp_path / "elsewhere")
    assert window(market) == []
    assert market.opened.engine.board is not None
    assert market.opened.engine.board.problem == home.LINK
    price(market, "industrial", 1)
    with pytest.raises(OSError, match=home.LINK):
        market.opened.prices.save()
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize(
    "setting",
    [
        *("market/data.mdb", "market", ".", "config.toml", "cancellations.log", "state"),
        *("keys/node", "spool/x", "state/../market/data.mdb", "reputation.json"),
        *("outbox", "outbox/z", "outbox/deep/z"),
    ],
)
def test_file_is_not_put_where_the_home_has_its_own(market: Market, setting: str) -> None:
    market.configure(price_board_path=setting)
    before = {path: path.read_bytes() for path in market.path.iterdir() if path.suffix == ".mdb"}
    price(market, "industrial", 1)
    for call in (market.opened.prices.load, market.opened.prices.save):
        with pytest.raises(UsageError, match="price_board_path leads to"):
            call()
    assert {path.name for path in market.path.iterdir()} >= {path.name for path in before}
    assert market.violations() == []


def test_directories_are_made_in_the_home_alone(
    market: Market, tmp_path_factory: pytest.TempPathFactory
) -> None:
    price(market, "industrial", 1)
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    beside = os.path.relpath(elsewhere, market.path.parent)
    for directory in (str(elsewhere), beside):
        market.configure(price_board_path=f"{directory}/missing/deep/b.bin")
        with pytest.raises(FileNotFoundError):
            market.opened.prices.save()
        assert list(elsewhere.iterdir()) == []
    market.configure(price_board_path=str(market.path.parent / "boards" / "deep" / "b.bin"))
    assert market.opened.prices.save() is not None
    assert window(market) == [1]


def test_another_path_is_used_and_files_of_others_stay(market: Market, tmp_path: Path) -> None:
    for setting in ("boards/deep/b.bin", str(tmp_path / "outside" / "b.bin"), "state/b.bin"):
        market.configure(price_board_path=setting)
        price(market, "industrial", 1)
        ends(market)
        path = market.path.parent / setting
        assert path.stat().st_mode & 0o777 == 0o600
        assert window(market) != []
    path.write_text("a letter")
    price(market, "industrial", 2)
    with pytest.raises(OSError, match="is a file of something else"):
        market.opened.prices.save()
    assert path.read_text() == "a letter"
    path.write_bytes(b"")
    assert market.opened.prices.save() is not None


def test_configured_window_wins_over_the_saved_one(market: Market) -> None:
    price(market, "industrial", *range(10))
    ends(market)
    market.configure(price_board_window=3)
    assert window(market) == [7, 8, 9]
    market.configure(price_board_window=100)
    assert window(market) == list(range(10))


def test_file_that_another_process_saves_is_left_to_it(market: Market) -> None:
    import fcntl

    price(market, "industrial", 1)
    directory = file_of(market).parent
    directory.mkdir()
    descriptor = os.open(directory, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        with pytest.raises(OSError, match="another process is saving it"):
            market.opened.prices.save()
    finally:
        os.close(descriptor)
    assert market.opened.prices.save() is not None


def test_what_a_killed_save_left_is_no_hindrance(market: Market) -> None:
    price(market, "industrial", 1)
    path = file_of(market)
    path.parent.mkdir()
    path.with_name(f"{path.name}.tmp").write_bytes(b"PBRD\2")
    ends(market)
    assert os.listdir(path.parent) == [path.name]
    assert window(market) == [1]


def test_failed_write_leaves_what_was_there(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    price(market, "industrial", 1)
    ends(market)
    price(market, "industrial", 2)
    before = file_of(market).read_bytes()
    for name in ("fsync", "write", "replace"):
        with monkeypatch.context() as patched:
            patched.setattr(os, name, refuse)
            with pytest.raises(OSError, match="no room"):
                market.opened.prices.save()
        assert file_of(market).read_bytes() == before
        assert os.listdir(file_of(market).parent) == [file_of(market).name]
    assert market.opened.prices.save() is not None
    assert window(market) == [1, 2]


def refuse(*_: object, **__: object) -> None:
    raise OSError(28, "no room")


@pytest.mark.parametrize("when", ["before the save", "while the save waits"])
def test_board_of_another_market_that_took_the_place_is_left_as_it_is(
    tmp_path: Path, when: str
) -> None:
    """The board is found by its path, the store is the one that was opened."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for each in (theirs, ours):
        each.mkdir()
        found = Market(each / "market")
        price(found, "industrial", 4 if each is ours else 500)
        found.opened.prices.save()
        if each is theirs:
            found.store.close()
    price(found, "industrial", 4)
    before = (theirs / "state" / "price_board.v2.bin").read_bytes()

    def replace(_: float = 0) -> None:
        if theirs.exists():
            ours.rename(tmp_path / "moved")
            theirs.rename(ours)
            fcntl.flock(held, fcntl.LOCK_UN)

    held = os.open(ours / "state", os.O_RDONLY)
    if when == "while the save waits":
        fcntl.flock(held, fcntl.LOCK_EX)
        found.store._sleep = replace  # type: ignore[method-assign]  # A moment in which it waits.
    else:
        replace()
    with pytest.raises(ConflictError, match="moved away or replaced"):
        found.opened.prices.save()
    os.close(held)
    found.store.close()
    assert (ours / "state" / "price_board.v2.bin").read_bytes() == before


def test_look_leaves_alone_what_another_thread_saves_meanwhile(market: Market) -> None:
    engine = market.opened.engine
    engine.load_prices()
    market.post()
    market.submit("first")
    engine.save_prices()
    usual = engine.clock

    def interrupted() -> Reading | int:
        """The clock is read within the look: its snapshot has the first price alone."""
        engine.clock = usual
        with ThreadPoolExecutor(1) as other:
            other.submit(market.submit, "second").result()
            other.submit(engine.save_prices).result()
        return usual()

    engine.clock = interrupted
    market.view(lambda txn: None)
    assert engine.board is not None
    assert engine.board.seq == 2
