"""Verbs on the price board: prices show and suggest."""

import os
import sys
from itertools import pairwise
from typing import Any

from compute_market.amounts import half_up
from compute_market.jobs import lanes
from compute_market.offers import board
from compute_market.records import LANES, Lane
from compute_market.store.txn import Txn
from tb_cli.frame import price_board
from tb_cli.frame.listing import lists, terminal
from tb_cli.frame.listing.columns import Column, Noun
from tb_cli.frame.listing.reading import AtHand
from tb_cli.frame.render import emit, fields
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import examples, option, takes

_COLUMNS = ("lane", "p25", "median", "p75", "samples", "newest_at")
_BANDS = (
    Column("lane"),
    *(Column(name, kind="number") for name in _COLUMNS[1:5]),
    Column("newest_at", "NEWEST", "at"),
    Column("window"),
)
_MARKS = "▁▂▃▄▅▆▇█"
# What the other columns leave of a terminal, as a rule.
_OTHERS_WIDTH = 52
_MARKS_MIN, _MARKS_MAX = 8, 60


@takes(option("--lane", "Only this lane.", choices=LANES))
@examples(
    "tb-cli compute-market prices",
    "tb-cli compute-market prices show --lane industrial",
    "tb-cli compute-market prices --json",
)
def show(session: Session, *, lane: Lane | None) -> None:
    """They are the quartiles of the last effective prices, and how long ago the newest was made. On
    a terminal a small graph shows the window, the newest price on the right.
    """
    price_board.load(session)
    chosen = LANES if lane is None else (lane,)

    def look(txn: Txn) -> dict[Lane, tuple[dict[str, Any] | None, list[int]]]:
        return {each: (board.document(txn, each), board.window(txn, each)) for each in chosen}

    found = session.view(look)
    if session.json:
        emit(session, {each: document for each, (document, _) in found.items()}, "")
        return
    graphs = {each: graph(window, _room()) for each, (_, window) in found.items()}
    table = (*_COLUMNS, "window") if any(graphs.values()) else _COLUMNS
    noun = Noun("lanes", "lane", _BANDS, shown=_COLUMNS, table=table)
    rows = []
    for each, (document, _) in found.items():
        row = {"lane": each, "samples": 0, "window": graphs[each]}
        rows.append(row | (document or {}))
    lists.show(session, noun, {}, AtHand(rows))


@takes(option("--lane", "The lane to bid in.", choices=LANES, default="industrial"))
@examples(
    "tb-cli compute-market prices suggest",
    "tb-cli compute-market prices suggest --lane consumer --json",
)
def suggest(session: Session, *, lane: Lane) -> None:
    """It is the median of the lane, and more by the jobs that wait in it: median × (1 +
    backlog/window), rounded up. An offer of the price 0 takes that of the industrial lane.
    """
    price_board.load(session)
    found = session.view(lambda txn: board.suggested(txn, lane, lanes.waiting_in(txn, lane)))
    emit(session, found, fields(found))


def graph(window: list[int], room: int) -> str | None:
    """Prices as marks between their least and their greatest, each mark for so many of them.

    None where there are none, or a terminal cannot show it.
    """
    if not window or not terminal.can_show(_MARKS):
        return None
    count = min(room, len(window))
    bounds = [len(window) * place // count for place in range(count + 1)]
    parts = [window[start:end] for start, end in pairwise(bounds)]
    means = [sum(part) // len(part) for part in parts]
    least, span = min(means), max(means) - min(means)
    top = len(_MARKS) - 1
    # Where all are alike there is no up and down.
    steps = [half_up((mean - least) * top, span) if span else top // 2 for mean in means]
    return "".join(_MARKS[step] for step in steps)


def _room() -> int:
    """How many marks there is room for."""
    try:
        width = os.get_terminal_size(sys.stdout.fileno()).columns
    except OSError:
        width = 80
    return max(_MARKS_MIN, min(width - _OTHERS_WIDTH, _MARKS_MAX))
