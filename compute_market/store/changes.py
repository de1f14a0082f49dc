"""Whether anything was committed to a store, without a look at it.

A part of `store` for who looks again and again.
"""

from compute_market.store.store import Store


def last_commit(store: Store) -> int:
    """The number of the last commit, of whichever process; one that was rolled back has none."""
    store.is_here()  # A compacted copy goes on in the place of the file.
    return int(store._env.info()["last_txnid"])
