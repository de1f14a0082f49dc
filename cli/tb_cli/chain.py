"""Verbs on heights: status, advance."""

from msgspec.structs import asdict

from compute_market import chain
from compute_market.amounts import AMOUNT_MAX
from tb_cli.frame.render import emit, fields
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import number, takes


def status(session: Session) -> None:
    document = asdict(session.view(chain.status))
    emit(session, document, fields(document))


@takes(number("blocks", "N", "How many blocks.", least=1, most=AMOUNT_MAX))
def advance(session: Session, blocks: int) -> None:
    """Heights never go back."""
    status = session.update(lambda txn: chain.advance(txn, blocks))
    emit(session, asdict(status), f"height {status.height}, epoch {status.epoch}")
