"""The price board, as it was loaded."""

from typing import Literal

from msgspec import Struct

from compute_market.records import Lane


class Board(Struct, frozen=True, gc=False):
    """What a file of the board says. One that is missing or damaged says nothing."""

    outcome: Literal["success", "missing", "damaged"] = "missing"
    problem: str = ""  # of a damaged one
    # Of the last price that counts in it, or does not count any more: see `offers.board.begun`.
    seq: int | None = None
    industrial: tuple[int, ...] = ()  # oldest first
    consumer: tuple[int, ...] = ()

    def of(self, lane: Lane) -> tuple[int, ...]:
        return self.industrial if lane == "industrial" else self.consumer
