"""Draws `assets/scheduler_flow.svg`: how a job finds its provider, goes over, and is paid.

Run it with `python docs/draw_scheduler_flow.py` after the picture has changed; a test compares the
two.
"""

from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

TARGET = Path(__file__).resolve().parent / "assets" / "scheduler_flow.svg"
TITLE = "How a job finds its provider, goes over to another one, and is paid"

WIDTH, HEIGHT = 1000, 814
_COLUMNS = (32, 272, 512, 752)  # left edges of boxes
_BOX_WIDTH, _BOX_HEIGHT = 216, 86
_LINE = 16  # from one line of text to the next
_STYLE = """
text { font: 12px "DejaVu Sans", Verdana, Arial, sans-serif; fill: #1f2328; text-anchor: middle }
text.title { font-size: 13px; font-weight: bold }
text.stage { font-size: 14px; font-weight: bold; text-anchor: start }
text.label { fill: #59636e }
.page { fill: #ffffff }
.band { fill: #f3f5f7 }
.step { fill: #ffffff; stroke: #59636e }
.state { fill: #ddf4ff; stroke: #0969da; stroke-width: 2 }
.no { fill: #fff1e5; stroke: #bc4c00 }
.end { fill: #dafbe1; stroke: #1a7f37; stroke-width: 2 }
.way { fill: none; stroke: #59636e; stroke-width: 1.5 }
.back { stroke: #0969da; stroke-width: 2.5 }
.tip { fill: #59636e }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc }
  text.label { fill: #9198a1 }
  .page { fill: #0d1117 }
  .band { fill: #161b22 }
  .step { fill: #0d1117; stroke: #9198a1 }
  .state { fill: #0c2d6b; stroke: #4493f8 }
  .no { fill: #3d1e00; stroke: #db6d28 }
  .end { fill: #04260f; stroke: #3fb950 }
  .way { stroke: #9198a1 }
  .back { stroke: #4493f8 }
  .tip { fill: #9198a1 }
}
"""


class Box(NamedTuple):
    """A thing that happens to a job, or a state it is in then."""

    column: int
    top: int
    kind: str  # step, state, no or end
    title: str
    lines: tuple[str, ...]
    columns: int = 1  # that it covers

    @property
    def left(self) -> int:
        return _COLUMNS[self.column]

    @property
    def right(self) -> int:
        return _COLUMNS[self.column + self.columns - 1] + _BOX_WIDTH

    @property
    def middle(self) -> int:
        return (self.left + self.right) // 2

    @property
    def bottom(self) -> int:
        return self.top + (_BOX_HEIGHT if len(self.lines) > 1 else 48)

    @property
    def level(self) -> int:
        return (self.top + self.bottom) // 2


class Arrow(NamedTuple):
    """A way from box to box by its corners, and a word at a place beside it."""

    corners: tuple[tuple[int, int], ...]
    label: str = ""
    at: tuple[int, int] = (0, 0)
    kind: str = "way"


BANDS = (
    (40, 222, "A job finds its provider"),
    (302, 320, "It runs, and may go over to a provider that has earned more"),
    (662, 136, "Everybody is paid"),
)

SUBMIT = Box(
    0,
    76,
    "step",
    "submit",
    ("slices are measured and", "hashed; what no market", "would take ends here"),
)
MATCH = Box(
    1,
    76,
    "step",
    "match",
    ("of the offers that fit", "the lowest effective price,", "then the older offer"),
)
ADMISSION = Box(
    2, 76, "step", "admission", ("capacity, fair share", "and burst quota of buyer", "and provider")
)
FUNDS = Box(
    3, 76, "step", "funds", ("in real: escrow and bond", "of the buyer, bond of the", "provider")
)
PENDING = Box(1, 198, "state", "pending", ("with --wait; else refused",))
REFUSED = Box(2, 198, "no", "refused", ("the reason is kept, and nothing is used up",), 2)

QUEUED = Box(
    0,
    338,
    "state",
    "queued",
    ("by priority, then arrival;", "low jobs have a cap, every", "party its share of the slots"),
)
ACTIVE = Box(
    1,
    338,
    "state",
    "active",
    ("has a slot; its provider", "proves slice after slice", "until the deadline"),
)
ENDED = Box(
    3, 338, "end", "ended", ("completed, cancelled", "or failed: one change", "of the market")
)
OFFER = Box(
    0,
    452,
    "step",
    "a new offer",
    ("fits what is left, is no", "dearer, and has earned more", "by preempt_min_delta"),
)
HANDOFF = Box(
    1,
    452,
    "step",
    "handoff",
    ("a bundle tells of the job", "and of what is left of it;", "the courier carries it"),
)
JUDGED = Box(
    2,
    452,
    "step",
    "acknowledged",
    ("all is judged again, in", "the transaction in which", "the job goes over"),
)
OVER = Box(
    3,
    452,
    "step",
    "goes over",
    ("new price, new bond; old", "bond back; what is proven", "stays the old provider's"),
)
FAILED = Box(
    1, 562, "no", "handoff_failed", ("the job stays as it was, with the provider it has",), 2
)

RECEIPTS = Box(
    0,
    698,
    "step",
    "a receipt each",
    ("for every provider: units", "it has proven at the price", "it held the job for"),
)
PAID = Box(
    1,
    698,
    "end",
    "providers",
    ("are paid out of the escrow,", "each for its own part,", "in CT and IT"),
)
BUYER = Box(
    2,
    698,
    "end",
    "buyer",
    ("gets back what the escrow", "has left, to the last unit", "of each token"),
)
BONDS = Box(
    3,
    698,
    "end",
    "bonds",
    ("are released, or burned", "where the job failed by", "the fault of its party"),
)

BOXES = (
    *(SUBMIT, MATCH, ADMISSION, FUNDS, PENDING, REFUSED),
    *(QUEUED, ACTIVE, ENDED, OFFER, HANDOFF, JUDGED, OVER, FAILED),
    *(RECEIPTS, PAID, BUYER, BONDS),
)  # fmt: skip


def _across(one: Box, two: Box, label: str = "") -> Arrow:
    at = (one.right + two.left) // 2, one.level - 8
    return Arrow(((one.right, one.level), (two.left, two.level)), label, at)


def _down(one: Box, two: Box, x: int) -> Arrow:
    return Arrow(((x, one.bottom), (x, two.top)))


def _round(one: Box, two: Box, gap: int, label: str) -> Arrow:
    """Around the right margin, through the gap between two bands, to the first column."""
    left, right = 10, WIDTH - 10
    down = (one.right, one.level), (right, one.level), (right, gap), (left, gap)
    return Arrow((*down, (left, two.level), (two.left, two.level)), label, (WIDTH // 2, gap - 7))


ARROWS = (
    _across(SUBMIT, MATCH),
    _across(MATCH, ADMISSION),
    _across(ADMISSION, FUNDS),
    _down(MATCH, PENDING, MATCH.middle - 40),
    Arrow(
        ((MATCH.middle + 40, PENDING.top), (MATCH.middle + 40, MATCH.bottom)),
        "tried again",
        (MATCH.middle + 84, MATCH.bottom + 22),
    ),
    _down(ADMISSION, REFUSED, ADMISSION.middle),
    _down(FUNDS, REFUSED, FUNDS.middle),
    _round(FUNDS, QUEUED, 284, "admitted"),
    _across(QUEUED, ACTIVE),
    _across(ACTIVE, ENDED, "the last proof, a cancel, the deadline"),
    _across(OFFER, HANDOFF),
    _across(HANDOFF, JUDGED),
    _across(JUDGED, OVER),
    _down(HANDOFF, FAILED, HANDOFF.middle),
    _down(JUDGED, FAILED, JUDGED.middle),
    Arrow(
        ((OVER.middle, OVER.top), (OVER.middle, 438), (ACTIVE.middle, 438), (ACTIVE.middle, 424)),
        "the same job, another provider",
        (JUDGED.middle, 432),
        "back",
    ),
    _round(ENDED, RECEIPTS, 644, "in one transaction"),
    _across(RECEIPTS, PAID),
    _across(PAID, BUYER),
    _across(BUYER, BONDS),
)


def render() -> str:
    """The whole picture."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        'aria-labelledby="title">',
        f'<title id="title">{escape(TITLE)}</title>',
        f"<style>{_STYLE}</style>",
        '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="9" '
        'markerHeight="9" markerUnits="userSpaceOnUse" orient="auto">'
        '<path class="tip" d="M 0 0 L 10 5 L 0 10 z"/></marker></defs>',
        f'<rect class="page" width="{WIDTH}" height="{HEIGHT}"/>',
        _text(_COLUMNS[0] - 12, 26, "stage", TITLE),
    ]
    for top, height, name in BANDS:
        left = _COLUMNS[0] - 12
        size = f'width="{WIDTH - 2 * left}" height="{height}"'
        parts.append(f'<rect class="band" x="{left}" y="{top}" {size} rx="8"/>')
        parts.append(_text(_COLUMNS[0], top + 23, "stage", name))
    parts += map(_drawn_arrow, ARROWS)
    parts += map(_drawn_box, BOXES)
    return "\n".join((*parts, "</svg>", ""))


def _drawn_arrow(arrow: Arrow) -> str:
    corners = " L ".join(f"{x} {y}" for x, y in arrow.corners)
    kind = "way" if arrow.kind == "way" else f"way {arrow.kind}"
    drawn = f'<path class="{kind}" d="M {corners}" marker-end="url(#tip)"/>'
    if not arrow.label:
        return drawn
    return f"{drawn}\n{_text(*arrow.at, 'label', arrow.label)}"


def _drawn_box(box: Box) -> str:
    size = f'width="{box.right - box.left}" height="{box.bottom - box.top}"'
    parts = [f'<rect class="{box.kind}" x="{box.left}" y="{box.top}" {size} rx="6"/>']
    parts.append(_text(box.middle, box.top + 20, "title", box.title))
    for number, line in enumerate(box.lines, 1):
        parts.append(_text(box.middle, box.top + 22 + _LINE * number, "line", line))
    return "\n".join(parts)


def _text(x: int, y: int, kind: str, text: str) -> str:
    return f'<text class="{kind}" x="{x}" y="{y}">{escape(text)}</text>'


if __name__ == "__main__":
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(render(), encoding="utf-8")
