"""Verbs on consumer transactions: submit, stats."""

from compute_market.admission import mempool, transactions
from compute_market.amounts import AMOUNT_MAX
from compute_market.errors import UsageError
from compute_market.jobs import pools
from compute_market.text import counted
from tb_cli.frame.options import KEY
from tb_cli.frame.render import emit, fields, shown, write_json
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import examples, option, takes


@takes(
    option(
        "--lane",
        "Its lane: consumer. Industrial work is submitted as jobs.",
        required=True,
        choices=("consumer", "industrial"),
    ),
    option("--sender", "Who sends it.", required=True),
    option("--fee", "What it pays.", kind="integer", required=True, least=1, most=AMOUNT_MAX),
    option(
        "--bytes",
        "Its size.",
        name="size",
        kind="integer",
        unit="bytes",
        required=True,
        least=1,
        most=mempool.BYTES_MAX,
    ),
    KEY,
)
@examples(
    "tb-cli mempool submit --lane consumer --sender alice --fee 40 --bytes 250",
    "tb-cli mempool submit --lane consumer --sender alice --fee 9 --bytes 250 --key tx-1",
)
def submit(
    session: Session, *, lane: str, sender: str, fee: int, size: int, key: str | None
) -> None:
    """It leaves with a later block, the best fee per byte first. A full pool gives up its lowest.
    What belongs to the industrial lane is a job: `compute submit`.
    """
    if lane != "consumer":
        raise UsageError(
            f"--lane: a transaction is of the consumer lane, not of {lane}",
            hint="the industrial lane takes jobs: `tb-cli compute submit`",
        )
    mempool.check_asked(sender, fee, size)
    document, refused = session.update(lambda txn: transactions.submit(txn, sender, fee, size, key))
    if refused is not None:
        if session.json:
            write_json(document)
        raise refused.error()
    tx_id = document["tx_id"]
    text = f"admitted {tx_id}: {fee} for {counted(size, 'byte')} from {sender}"
    if "evicted" in document:
        text += f", {document['evicted']} had to go"
    if not document["changed"]:
        text = f"key {key} was used: {tx_id}, unchanged"
    emit(session, document, f"{text}; the comfort guard is {document['mode']}")


@examples(
    "tb-cli mempool stats",
    "tb-cli mempool stats --json",
)
def stats(session: Session) -> None:
    """The guard is tight while the last fees, or the ages of the pool, are above their thresholds;
    fees are those of the last 50 transactions. The industrial pool is the queue.
    """
    document = session.view(pools.document)
    lines = fields({name: value for name, value in document.items() if name != "lanes"})
    of_lanes = [shown({"lane": lane} | pool) for lane, pool in document["lanes"].items()]
    emit(session, document, [*lines, *of_lanes])
