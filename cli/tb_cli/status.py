"""The one page: how the market stands, and what is due."""

from compute_market import overview
from compute_market.store.usage import measured
from tb_cli.frame.render import emit, fields
from tb_cli.frame.session import Session
from tb_cli.frame.times import with_local
from tb_cli.frame.verbs import examples


@examples(
    "tb-cli status",
    "tb-cli status --json",
)
def status(session: Session) -> None:
    """Settlement mode, height, comfort guard, slots, jobs that wait and why, those that are held,
    offers and what bars them, capacity, where the money is, bundles, the last command, and what
    the next change would find due. Reasons are those of all that wait for a slot, with all that
    are held, and of the first 256 jobs without an offer.
    """
    document = session.view(overview.document)
    usage = measured(session.market.store)
    document["store"] = {"home": str(session.home), "bytes": usage.bytes, "schema": usage.schema}
    emit(session, document, fields(with_local(document)))
