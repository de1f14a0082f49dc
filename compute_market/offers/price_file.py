"""The file of the price board: its bytes, and how it is read and replaced.

All numbers are unsigned and little-endian: the magic `PBRD`, version 2 and the number of lanes 2 in
16 bits each, the seq of the last price in 64 bits, how many prices of the lanes industrial and
consumer follow in 32 bits each, those prices in 64 bits each, the oldest first, and the CRC-32 of
all before.
"""

import errno
import os
import stat
from binascii import crc32
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from compute_market import home
from compute_market.config.settings import Config
from compute_market.errors import IntegrityError, UsageError
from compute_market.price_records import Board
from compute_market.store.lock import Patience
from compute_market.text import cause_of

MAGIC: Final = b"PBRD"
VERSION: Final = 2
_VERSION_END: Final = 6
_LANES: Final = 2
_HEAD_BYTES: Final = 24
_PRICE_BYTES: Final = 8
_CRC_BYTES: Final = 4
# The widest window there may be, of both lanes.
_PRICES_MAX: Final = 2 * 10_000
BYTES_MAX: Final = _HEAD_BYTES + _PRICES_MAX * _PRICE_BYTES + _CRC_BYTES


def encode(board: Board) -> bytes:
    """The bytes of the file of a board."""
    lanes = board.industrial, board.consumer
    parts = [
        MAGIC,
        VERSION.to_bytes(2, "little"),
        _LANES.to_bytes(2, "little"),
        (board.seq or 0).to_bytes(8, "little"),
        *(len(lane).to_bytes(4, "little") for lane in lanes),
        *(price.to_bytes(_PRICE_BYTES, "little") for lane in lanes for price in lane),
    ]
    content = b"".join(parts)
    return content + crc32(content).to_bytes(_CRC_BYTES, "little")


def decode(content: bytes) -> Board:
    """The board that the bytes of a file say. Raises IntegrityError with what is wrong with it."""

    def number(start: int, size: int) -> int:
        return int.from_bytes(content[start : start + size], "little")

    if not content:
        raise IntegrityError("it is empty")
    if content[: len(MAGIC)] != MAGIC[: len(content)]:
        raise IntegrityError("it is no price board")
    if len(content) < _VERSION_END:
        raise IntegrityError("it is cut off")
    if number(4, 2) != VERSION:
        raise IntegrityError(f"it is of version {number(4, 2)}, not {VERSION}")
    if len(content) < _HEAD_BYTES + _CRC_BYTES:
        raise IntegrityError("it is cut off")
    body = content[:-_CRC_BYTES]
    industrial, consumer = number(16, 4), number(20, 4)
    if number(6, 2) != _LANES or len(body) != _HEAD_BYTES + _PRICE_BYTES * (industrial + consumer):
        raise IntegrityError("it is not as long as it says")
    if crc32(body) != number(len(body), _CRC_BYTES):
        raise IntegrityError("the checksum is another")
    found = tuple(
        number(start, _PRICE_BYTES) for start in range(_HEAD_BYTES, len(body), _PRICE_BYTES)
    )
    return Board("success", "", number(8, 8), found[:industrial], found[industrial:])


def path_of(store: str, config: Config) -> str:
    """The file of the board of a market, by the path of its store.

    Raises UsageError for what is the home's own, and OSError for a link on the way in the home.
    """
    directory, setting = os.path.dirname(store), config.price_board_path
    path = os.path.join(directory, setting)
    if setting != home.PRICE_BOARD:
        root = os.path.realpath(directory)
        found, state = os.path.realpath(path), os.path.join(root, home.STATE)
        outbox = os.path.join(root, home.OUTBOX)
        own = home.own_part(directory, path)
        if found == outbox or found.startswith(f"{outbox}/"):
            own = outbox
        if own not in (None, state) or found == state:
            raise UsageError(
                f"price_board_path leads to {own}, which belongs to the market itself",
                hint=f'give another file, or "{home.PRICE_BOARD}"',
            )
    above = os.path.dirname(path)
    if above.startswith(f"{directory}/"):
        home.check_no_link_below(directory, above)
    return path


def load(store: str, config: Config) -> Board:
    """The board of a market. What cannot be read, or is none, is damaged; see `Board.problem`.

    Raises UsageError as `path_of` does.
    """
    try:
        return _found(path_of(store, config))[0]
    except OSError as error:
        return Board("damaged", cause_of(error))


def stamp(store: str, config: Config) -> tuple[int, ...] | None:
    """What tells whether the file of a market's board is still the one that was read or saved.

    None where there is none.
    """
    try:
        found = os.stat(path_of(store, config), follow_symlinks=False)
    except (OSError, UsageError):
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def save(store: str, config: Config, patience: Patience, change: Callable[[Board], Board]) -> Board:
    """Replace the file at once by what `change` makes of it, with nobody else at it.

    The board that is returned says what problem the one had whose place it took.

    A regular file is replaced whatever it holds where it has the name that is set by default;
    elsewhere only a board, or an empty one. Raises OSError, also where another process is at it for
    longer than there is `patience`, and UsageError as `path_of` does.
    """
    path = path_of(store, config)
    is_ours = config.price_board_path == home.PRICE_BOARD
    directory, name = os.path.split(path)
    descriptor = _open_directory(directory, os.path.dirname(store))
    try:
        if not patience.has_lock(descriptor):
            raise OSError(errno.EAGAIN, "another process is saving it")
        found, content = _found(path)
        if found.outcome == "damaged":
            _check_replaceable(path, content, is_ours=is_ours)
        board = change(found)
        board.problem = found.problem
        new = encode(board)
        if new != content:
            _replace(descriptor, path, name, new)
        return board
    finally:
        os.close(descriptor)


def _found(path: str) -> tuple[Board, bytes]:
    """The board in a file, and its bytes."""
    content = b""
    try:
        content = home.read(path, BYTES_MAX)
        return decode(content), content
    except FileNotFoundError:
        return Board("missing"), content
    except OSError as error:
        return Board("damaged", cause_of(error)), content
    except IntegrityError as error:
        return Board("damaged", error.message), content


def _open_directory(path: str, home_path: str) -> int:
    """Open the directory of the board; it is made where it is missing in the home, and only there.

    One that is missing elsewhere may be a disk that is not mounted, or a slip of the pen.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        if not os.path.realpath(path).startswith(f"{os.path.realpath(home_path)}/"):
            raise
        home.make_directories(path)
        home.give_to_owner(path)
        return os.open(path, flags)


def _check_replaceable(path: str, content: bytes, *, is_ours: bool) -> None:
    """Raise OSError for what a board must not take the place of."""
    there = os.lstat(path)
    if stat.S_ISLNK(there.st_mode):
        raise OSError(errno.ELOOP, home.LINK)
    if not stat.S_ISREG(there.st_mode):
        raise OSError(errno.EINVAL, "is not a regular file")
    if not is_ours and there.st_size and not content.startswith(MAGIC):
        raise OSError(errno.EEXIST, "is a file of something else")


def _is_left_over(path: str) -> bool:
    """Whether a file is what a killed save has left: the begin of a board, and of nobody else."""
    try:
        begin = home.read(path, BYTES_MAX)[: len(MAGIC)]
    except OSError:
        return False
    return MAGIC.startswith(begin)


def _replace(directory: int, path: str, name: str, content: bytes) -> None:
    temporary = f"{name}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(temporary, flags, home.FILE_MODE, dir_fd=directory)
    except FileExistsError:
        # Who made it was killed: with the lock in hand nobody is at it.
        if not _is_left_over(f"{path}.tmp"):
            raise OSError(errno.EEXIST, f"{temporary} beside it is in the way") from None
        os.unlink(temporary, dir_fd=directory)
        descriptor = os.open(temporary, flags, home.FILE_MODE, dir_fd=directory)
    try:
        try:
            left = memoryview(content)
            while left:
                left = left[os.write(descriptor, left) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        home.give_to_owner(f"{path}.tmp")
        os.replace(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary, dir_fd=directory)
        raise
    os.fsync(directory)
