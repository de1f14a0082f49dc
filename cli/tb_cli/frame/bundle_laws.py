"""Whether the spool holds what the market says it does."""

import os
from collections.abc import Iterator

from compute_market import home as names
from compute_market.courier import courier
from compute_market.laws import Violation
from compute_market.store.txn import Txn
from compute_market.text import cause_of
from tb_cli.frame.bundle_content import hash_of
from tb_cli.frame.bundles import path_of
from tb_cli.frame.home import Home

_THERE = "the bundle of a receipt that waits is in the spool"
_INTACT = "a bundle in the spool is what its name says"


def violations(txn: Txn, home: Home, *, hashed: bool) -> Iterator[Violation]:
    """What is wrong with the bundles in the spool; their bytes are read with `hashed`.

    The bundle of a receipt that has ended may be gone: nobody needs it unless it is sent again.
    """
    sizes: dict[bytes, int] = {}
    waiting: set[bytes] = set()
    for receipt in courier.receipts(txn):
        sizes[receipt.bundle_hash] = receipt.size
        if receipt.state == "pending":
            waiting.add(receipt.bundle_hash)
    for bundle_hash in sorted(sizes):
        path = path_of(home, bundle_hash)
        law = _INTACT if os.path.lexists(path) else _THERE
        if law == _INTACT or bundle_hash in waiting:
            problem = _problem(path, bundle_hash, sizes[bundle_hash], hashed=hashed)
            if problem is not None:
                yield Violation(names.SPOOL, bundle_hash.hex(), law, problem)


def _problem(path: str, bundle_hash: bytes, size: int, *, hashed: bool) -> str | None:
    try:
        with open(names.open_regular(path, os.O_RDONLY), "rb") as file:
            found = os.fstat(file.fileno()).st_size
            if found != size:
                return f"it has {found} bytes, and had {size}"
            if hashed and hash_of(file) != bundle_hash:
                return "its bytes are others"
    except OSError as error:
        return cause_of(error)
    return None
