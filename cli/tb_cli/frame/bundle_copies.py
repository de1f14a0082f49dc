"""Bundles in copies of a home: those that wait, since nobody else may have them by now."""

import os
from collections.abc import Iterator

from compute_market import home as names
from compute_market.courier import courier
from compute_market.engine import Engine
from compute_market.errors import MarketError
from compute_market.store.txn import Txn
from tb_cli.frame import bundle_laws, bundles
from tb_cli.frame.bundle_content import OpenFile, written
from tb_cli.frame.home import Home
from tb_cli.frame.render import note

_PAGE = 1000


def fill(copy: Home, home: Home, market: Engine) -> None:
    """Copy what waits in the market of a copy from the spool of a home, which stays as it is.

    What is missing or damaged there is warned of. Raises OSError when it cannot be written.
    """
    os.mkdir(copy.spool, mode=names.DIRECTORY_MODE)
    for bundle_hash in _waiting(market):
        path = bundles.path_of(copy, bundle_hash)
        if os.path.exists(path):
            continue  # Another receipt of the same bundle.
        try:
            with OpenFile(bundles.path_of(home, bundle_hash)) as opened:
                is_right = _copy(opened, path) == bundle_hash
        except MarketError as error:
            note(f"warning: {error.message}: the bundle is not in the copy")
            continue
        if not is_right:
            os.unlink(path)
            note(f"warning: bundle {bundle_hash.hex()} is damaged: it is not in the copy")


def problems(txn: Txn, copy: Home) -> list[str]:
    """What is wrong with the bundles of a copy, in words."""
    return [str(each) for each in bundle_laws.violations(txn, copy, hashed=True)]


def parts_of(copy: Home) -> list[str]:
    """The bundles in a copy, by their paths in it."""
    try:
        found = sorted(os.listdir(copy.spool))
    except FileNotFoundError:
        return []
    return [f"{names.SPOOL}/{name}" for name in found if bundles.is_hash(name)]


def is_part(path: str) -> bool:
    """Whether a path in a copy may be that of a bundle."""
    directory, name = os.path.split(path)
    return directory == names.SPOOL and bundles.is_hash(name)


def has_others(home: Home, copy: Home) -> bool:
    """Whether there is anything in the spool of a home but what is in that of a copy."""
    if not os.path.lexists(home.spool):
        return False
    if os.path.islink(home.spool) or not os.path.isdir(home.spool):
        return True
    ours = {os.path.basename(part) for part in parts_of(copy)}
    return not ours.issuperset(os.listdir(home.spool))


def _copy(opened: OpenFile, path: str) -> bytes:
    """Copy a bundle to a file that is not there; its hash."""
    descriptor = names.open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        return written(opened.pieces(), descriptor).bundle_hash
    finally:
        os.close(descriptor)


def _waiting(market: Engine) -> Iterator[bytes]:
    """The hashes of bundles that wait, by receipts."""
    after: bytes | None = None
    while True:
        found, after = market.view(lambda txn: _page(txn, after))  # noqa: B023 - called at once
        yield from found
        if after is None:
            return


def _page(txn: Txn, after: bytes | None) -> tuple[list[bytes], bytes | None]:
    found, last = courier.waiting(txn, after, _PAGE)
    return [receipt.bundle_hash for receipt in found], last
