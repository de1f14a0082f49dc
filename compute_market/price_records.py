"""The price board, as it was loaded."""

from typing import Literal

from compute_market.records import Lane

Outcome = Literal["success", "missing", "damaged"]


class Board:
    """What a file of the board says. One that is missing or damaged says nothing.

    A plain class: a record costs more to define than saving a board does, and every match does.
    """

    __slots__ = ("consumer", "industrial", "outcome", "problem", "seq", "seq_of_others")

    def __init__(
        self,
        outcome: Outcome = "missing",
        problem: str = "",  # of a damaged one, or of one whose place it took
        # Of the last price that counts in it, or does not count any more: see
        # `offers.price_window.begun`.
        seq: int | None = None,
        industrial: tuple[int, ...] = (),  # oldest first
        consumer: tuple[int, ...] = (),
    ) -> None:
        self.outcome: Outcome = outcome
        self.problem = problem
        self.seq = seq
        self.industrial = industrial
        self.consumer = consumer
        # That of a file which knows prices this market never had, before it was begun here.
        self.seq_of_others: int | None = None

    def of(self, lane: Lane) -> tuple[int, ...]:
        return self.industrial if lane == "industrial" else self.consumer

    def begun_at(self, seq: int) -> "Board":
        """The same, and no price up to this seq counts but its own."""
        begun = Board(self.outcome, self.problem, seq, self.industrial, self.consumer)
        begun.seq_of_others = self.seq
        return begun
