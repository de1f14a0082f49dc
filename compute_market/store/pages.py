"""What the bytes of a data file say before LMDB maps it: is there anything, and is it whole.

LMDB trusts its file. A page that is read through the map but lies behind the end of the file ends
the process, so what may be damaged is looked at here first. Nothing is made or changed.
"""

from typing import Any, Final

from compute_market.errors import IntegrityError

_EMPTY_BYTES: Final = 8192
_MAGIC: Final = 0xBEEFC0DE
_META_BYTES: Final = 152  # A page header and the meta record behind it.
_PAGE_BYTES_MAX: Final = 65536
_NO_ROOT: Final = 2**64 - 1


def holds_nothing(data: str) -> bool:
    """Whether the data file is missing, empty, or what LMDB makes before its first commit.

    Only such a file may be made anew. One that is cut short is not one, whatever its length: its
    meta pages count pages that it has lost.
    """
    try:
        with open(data, "rb") as file:
            head = file.read(2 * _PAGE_BYTES_MAX)
    except FileNotFoundError:
        return True
    if len(head) <= _EMPTY_BYTES and not any(head):
        return True
    page_bytes = _number(head, 40, 4)
    metas = head[:_META_BYTES], head[page_bytes : page_bytes + _META_BYTES]
    return page_bytes > 0 and all(map(_is_fresh, metas))


def walked(path: str) -> list[str]:
    """What is wrong with the pages of the data file in a directory, a line for each problem.

    It reads the file, and does not map it: no damage can end this process. A writer at work looks
    like damage. Raises IntegrityError for what cannot be walked at all.
    """
    # In pure Python, and most commands have no use for it.
    from lmdb.verify import VerifyError, verify

    try:
        problems: list[Any] = verify(path)  # type: ignore[no-untyped-call]
    except VerifyError as error:
        raise IntegrityError(
            f"{path}: {error}", hint="restore the directory from a backup"
        ) from error
    return [str(problem) for problem in problems]


def check_whole(path: str, data: str, wanted: int) -> None:
    """Raise IntegrityError if the data file in a directory, of fewer bytes than wanted, is cut."""
    problems = walked(path)
    if problems:
        with open(data, "rb") as file:
            length = file.seek(0, 2)
        raise IntegrityError(
            f"{data} is damaged: it has {length} bytes, not {wanted}: {problems[0]}",
            hint="restore the directory from a backup",
        )


def _is_fresh(meta: bytes) -> bool:
    """Whether a meta page is that of an environment without a commit."""
    return (
        len(meta) == _META_BYTES
        and _number(meta, 16, 4) == _MAGIC
        and _number(meta, 128, 8) == _NO_ROOT
        and _number(meta, 136, 8) <= 1  # the last page
        and _number(meta, 144, 8) == 0  # transactions
    )


def _number(page: bytes, at: int, length: int) -> int:
    return int.from_bytes(page[at : at + length], "little")
