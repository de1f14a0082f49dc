"""What errors of LMDB are to an operator."""

import lmdb
import pytest

from compute_market.errors import BusyError, IntegrityError, MarketError
from compute_market.store.translation import translated


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (lmdb.CorruptedError, IntegrityError),
        # What a damaged page ends in where a change first meets it.
        (lmdb.BadTxnError, IntegrityError),
        (lmdb.CursorFullError, IntegrityError),
        (lmdb.PageFullError, IntegrityError),
        (lmdb.ProblemError, IntegrityError),
        (lmdb.MapFullError, BusyError),
        (lmdb.ReadersFullError, BusyError),
    ],
)
def test_error_of_lmdb_is_damage_or_passes(
    error: type[lmdb.Error], kind: type[MarketError]
) -> None:
    with pytest.raises(kind, match="home/market: why"), translated("home/market"):
        raise error("home/market: why")
