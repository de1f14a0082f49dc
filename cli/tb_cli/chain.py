"""Verbs on heights: status, advance."""

from msgspec.structs import asdict

from compute_market import chain, idempotency
from compute_market.amounts import AMOUNT_MAX
from compute_market.store.txn import Txn
from tb_cli.frame.options import KEY
from tb_cli.frame.render import emit, fields
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import examples, number, takes


@examples("tb-cli chain status")
def status(session: Session) -> None:
    document = asdict(session.view(chain.status))
    emit(session, document, fields(document))


@examples("tb-cli chain advance 10 --key hour-7")
@takes(number("blocks", "N", "How many blocks.", least=1, most=AMOUNT_MAX), KEY)
def advance(session: Session, blocks: int, *, key: str | None) -> None:
    """Heights never go back."""
    asked = {"blocks": blocks}

    def act(txn: Txn) -> tuple[chain.ChainStatus, bool]:
        if idempotency.find(txn, key, "blocks_advanced", asked) is not None:
            return chain.status(txn), False
        idempotency.remember(txn, key, "blocks_advanced", asked)
        return chain.advance(txn, blocks), True

    status, changed = session.update(act)
    text = "" if changed else f"key {key} was used: unchanged; "
    document = asdict(status) | {"changed": changed}
    emit(session, document, f"{text}height {status.height}, epoch {status.epoch}")
