"""How much of its disk and of its map a store takes."""

import os
from typing import Any, Final

from msgspec import Struct

from compute_market.home import data_file
from compute_market.store.late import Handles
from compute_market.store.schema import TABLES

_META_PAGES: Final = 2


class Usage(Struct, frozen=True, gc=False):
    """What a store takes of its disk and of its map."""

    schema: int
    bytes: int  # of the data file
    page_bytes: int
    pages: int
    free_pages: int  # in no table, and so to be used again; LMDB keeps its list of them in a few
    map_bytes: int  # what the file may grow to


def usage_of(path: str, schema: int, env: Any, txn: Any, handles: Handles) -> Usage:
    """The same of the store at `path`, as one transaction sees it."""
    info, of_all = env.info(), txn.stat()
    found = [txn.stat(handles[table]) for table in TABLES if handles[table] is not None]
    used = sum(
        each["branch_pages"] + each["leaf_pages"] + each["overflow_pages"]
        for each in (of_all, *found)
    )
    pages = int(info["last_pgno"]) + 1
    return Usage(
        schema,
        os.stat(data_file(path)).st_size,
        int(of_all["psize"]),
        pages,
        pages - _META_PAGES - used,
        int(info["map_size"]),
    )
