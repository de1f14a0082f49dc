"""What a store takes of its disk and of its map."""

import os
from typing import Final

from msgspec import Struct

from compute_market.home import data_file
from compute_market.store.schema import TABLES
from compute_market.store.store import Store

_META_PAGES: Final = 2


class Usage(Struct, frozen=True, gc=False):
    """What a store takes of its disk and of its map."""

    schema: int
    bytes: int  # of the data file
    page_bytes: int
    pages: int
    free_pages: int  # in no table, and so to be used again; LMDB keeps its list of them in a few
    map_bytes: int  # what the file may grow to


def measured(store: Store) -> Usage:
    """How much of the data file and of the map is used."""
    with store._look() as (txn, handles):
        info, of_all = store._env.info(), txn.stat()
        length = os.stat(data_file(store.path)).st_size
        found = [txn.stat(handles[table]) for table in TABLES if handles[table] is not None]
    used = sum(
        each["branch_pages"] + each["leaf_pages"] + each["overflow_pages"]
        for each in (of_all, *found)
    )
    pages = int(info["last_pgno"]) + 1
    return Usage(
        store.schema,
        length,
        int(of_all["psize"]),
        pages,
        pages - _META_PAGES - used,
        int(info["map_size"]),
    )
