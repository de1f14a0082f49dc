"""Copies of the data file of a store: in another place, and compacted in its own.

A part of `store`, which every command imports and few need this of.
"""

import os

from compute_market.home import data_file
from compute_market.store.compaction import exchange
from compute_market.store.creation import sync
from compute_market.store.store import Store
from compute_market.store.translation import translated


def backup(store: Store, path: str) -> None:
    """Copy a consistent, compacted snapshot into the empty directory `path`, synced."""
    with store._look(), translated(path):
        store._env.copy(path, compact=True)
        os.chmod(data_file(path), 0o600)
        sync(data_file(path))


def compact(store: Store, token: bytes) -> tuple[int, int]:
    """Rewrite the data file without what is free in it; its bytes before and after.

    See `compaction`, whose `token` are 16 random bytes. Another compaction that came first is
    followed, then done again. Raises what `Store.update` raises.
    """
    data = data_file(store.path)
    store._open_for("write")
    while True:
        store.check_is_here()
        with (
            translated(store.path),
            store._writing_alone(store._lock_timeout_ms),
            store._threads.alone(),
        ):
            if store._is_here():
                before = os.stat(data).st_size
                try:
                    exchange(store._env, data, token)
                finally:
                    store._reopen("write")
                return before, os.stat(data).st_size
