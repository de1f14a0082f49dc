"""The file of the price board, loaded before a transaction and saved after the last one.

That it cannot be loaded or saved is a warning: the store has the prices all the same.
"""

from contextlib import suppress
from typing import TYPE_CHECKING

from compute_market import metrics
from compute_market.errors import MarketError, UsageError
from compute_market.text import cause_of, quoted
from tb_cli.frame.render import note
from tb_cli.frame.session import Session

if TYPE_CHECKING:
    from compute_market.engine import Engine
    from compute_market.price_records import Board


def load(session: Session) -> None:
    """Load the board for the transactions that follow, and say so if it is damaged."""
    market, path = session.market, quoted(session.config.price_board_path)
    try:
        board = market.load_prices()
    except UsageError as error:  # The path is that of something else.
        note(f"warning: price board {path}: {error.message}; it is empty")
        return
    if board.outcome == "damaged":
        note(f"warning: price board {path}: {board.problem}; it starts empty")
    elif session.tells_of_prices and board.outcome == "missing":
        note(f"no price board at {path}: it starts empty")
    elif session.tells_of_prices:
        note(f"loaded price board: {_counted(board)}")


def load_once(session: Session) -> None:
    """The same for the first of several actions that ask for it, outside any transaction."""
    if session.market.board is None:
        load(session)


def expect(session: Session) -> None:
    """Load the board once before the first match, so that loads, and the save before, are counted.

    What is wrong with it is told when it is saved.
    """
    if session.dry_run or not session.home.has_market() or session.market.board is not None:
        return
    with suppress(UsageError):
        session.market.load_prices()


def save(session: Session, market: "Engine") -> None:
    """Save the prices of this process."""
    path = quoted(session.config.price_board_path)
    try:
        board = market.save_prices()
    except OSError as error:
        problem = cause_of(error)
    except MarketError as error:
        problem = error.message
    else:
        if board is not None and board.problem:
            note(f"warning: price board {path}: {board.problem}; it has started empty")
        if board is not None and session.tells_of_prices:
            note(f"saved price board: {_counted(board)}")
        return
    note(f"warning: price board {path}: {problem}; it is not saved")
    _count_failure(session, market)


def _count_failure(session: Session, market: "Engine") -> None:
    try:
        market.update(
            lambda txn: metrics.count(txn, "price_board_save_total", "failed"), lock_timeout_ms=0
        )
    except MarketError:
        return  # It has failed for a reason that keeps this from being written as well.
    session.tell_of(market.due)


def _counted(board: "Board") -> str:
    return f"{len(board.industrial)} industrial and {len(board.consumer)} consumer prices"
