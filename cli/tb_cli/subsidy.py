"""Verb on what providers earn beside the price: subsidy."""

from compute_market.amounts import AMOUNT_MAX
from compute_market.subsidy import subsidy
from tb_cli.frame.render import emit, fields
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import examples, option, takes


@takes(
    option(
        "--height",
        "Any height of the epoch; without it, the present one.",
        kind="integer",
        metavar="H",
        least=0,
        most=AMOUNT_MAX,
    )
)
@examples(
    "tb-cli compute-market subsidy",
    "tb-cli compute-market subsidy --height 240 --json",
)
def show(session: Session, *, height: int | None) -> None:
    """The backlog is in units, multiplier and utilization are in percent, payouts in IT. The
    running epoch is shown as it would be paid if it ended now, at the present multiplier. What is
    due, the next change does: it closes the epochs that have ended, and pays.
    """
    document = session.view(lambda txn: subsidy.document(txn, height))
    emit(session, document, fields(document))
