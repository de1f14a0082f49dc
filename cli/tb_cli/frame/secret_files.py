"""What opens the sealed bids of one's own: `bids/BID.secret` in the home, for nobody else to read.

A file is on the disk before its bid is committed to. Whoever loses one cannot reveal the bid.
"""

import os
from contextlib import suppress

from compute_market.bids import bid_files
from compute_market.bids.sealing import Sealed
from compute_market.errors import IntegrityError
from compute_market.records import check_id
from compute_market.store.creation import sync
from compute_market.store.translation import translated
from tb_cli.frame import private_files
from tb_cli.frame.home import Home


def path_of(home: Home, bid_id: str) -> str:
    return os.path.join(home.bids, f"{check_id(bid_id, 'bid id')}.secret")


def find(home: Home, bid_id: str) -> Sealed | None:
    """The secret of a bid, or None.

    Raises UsageError for a file that others may read, IntegrityError for one that was changed or
    is that of another bid (`bad_commitment`).
    """
    private_files.check_directory(home.bids)
    path = path_of(home, bid_id)
    text = private_files.read(path, secret=True, size_max=bid_files.FILE_BYTES_MAX)
    if text is None:
        return None
    sealed = bid_files.parse_secret(text, path)
    if sealed.bid_tx.bid_id != bid_id:
        raise IntegrityError(
            f"{path} is the secret of bid {sealed.bid_tx.bid_id}, not of bid {bid_id}",
            hint="put the right one back from a copy",
            reason="bad_commitment",
        )
    return sealed


def keep(home: Home, sealed: Sealed) -> None:
    """Bring the secret of a new bid to the disk. Raises what making a store raises."""
    private_files.make_directory(home.bids)
    private_files.write_new(path_of(home, sealed.bid_tx.bid_id), bid_files.secret_text(sealed))
    with translated(home.bids):
        sync(home.bids)


def remove(home: Home, bid_id: str) -> None:
    """Take away the secret of a bid that was not committed to, if it can be."""
    with suppress(OSError):
        os.unlink(path_of(home, bid_id))
