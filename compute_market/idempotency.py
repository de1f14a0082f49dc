"""Keys under which an action happens once, however often it is asked for.

For what creates or counts without an id of its own. A movement of money is remembered by the ledger
under the same keys. The only writer of its table.
"""

from collections.abc import Mapping
from typing import Any

from compute_market.errors import check_same
from compute_market.keyed_records import Keyed
from compute_market.records import EventName, check_id
from compute_market.store.schema import KEYED, TAPS
from compute_market.store.txn import Txn


def find(txn: Txn, key: str | None, event: EventName, asked: Mapping[str, Any]) -> Keyed | None:
    """What happened under a key before; None without a key, or if nothing did.

    Raises UsageError for a key that is no id, and ConflictError naming the field when something
    else happened under it.
    """
    if key is None:
        return None
    name = check_id(key, "key").encode()
    done = txn.read(KEYED, name)
    if done is None:
        tap = txn.read(TAPS, name)
        if tap is None:
            return None
        fields = {"owner": tap.owner, "ct": tap.ct, "it": tap.it}
        done = Keyed(tap.event, fields, None, tap.at_ms)
    check_same(
        f"an action with key {key}",
        {"event": done.event, **done.fields},
        {"event": event, **asked},
        hint="use another --key",
    )
    return done


def is_known(txn: Txn, key: str | None) -> bool:
    """Whether anything happened under a key, if there is one."""
    if key is None:
        return False
    name = check_id(key, "key").encode()
    return txn.get(KEYED, name) is not None or txn.get(TAPS, name) is not None


def remember(
    txn: Txn, key: str | None, event: EventName, asked: Mapping[str, Any], made: str | None = None
) -> None:
    """Note what happened under a key, if there is one, and the id of what it made."""
    if key is not None:
        txn.write(KEYED, key.encode(), Keyed(event, dict(asked), made, txn.now_ms))
