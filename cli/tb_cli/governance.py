"""Verbs on what governs the market: params show, propose, approve, rollback."""

from typing import TYPE_CHECKING

from compute_market.amounts import AMOUNT_MAX
from compute_market.errors import NotFoundError, RefusedError
from compute_market.store.txn import Txn
from tb_cli.frame.options import ATOMIC, CHUNK, FAILED_TO, JSONL, KEY
from tb_cli.frame.render import emit, write_json
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import argument, examples, number, takes

if TYPE_CHECKING:
    from compute_market.governance_records import Parameter, Proposal


@examples(
    "tb-cli compute-market params",
    "tb-cli compute-market params show --json",
)
def show(session: Session) -> None:
    """They are in units per second, as a ratio, in units, and in units per second: those in force
    now where there is a market, else those of the configuration.
    """
    from compute_market.config import parameters

    config = session.config
    if session.home.has_market():
        config = session.view(lambda txn: txn.config)
    write_json(parameters.document(config))


@takes(
    argument("name", "KEY", "The parameter.", complete="parameter"),
    argument("value", "VALUE", "Its value, as a configuration file would have it."),
    KEY,
)
@examples(
    "tb-cli compute-market params propose fair_share_cap 0.1",
    "tb-cli compute-market params propose min_capacity 20 --key raise-1",
    "tb-cli compute-market params propose comfort_threshold_p90 500 --dry-run",
)
def propose(session: Session, name: str, value: str, *, key: str | None) -> None:
    """It changes nothing before it is approved. The value of `min_capacity` is in units per second,
    that of `fair_share_cap` a ratio, that of `burst_refill_rate` in units per second, and that of
    `comfort_threshold_p90` a fee. `burst_quota` can be set in the configuration only.
    """
    from compute_market.governance import parameters, proposals

    parsed = parameters.parse(name, value)
    proposal, document = session.update(lambda txn: proposals.propose(txn, name, parsed, key))
    text = f"proposed {_text(proposal)} as proposal {proposal.id}"
    if not document["changed"]:
        text = f"key {key} was used: unchanged; proposal {proposal.id} is {proposal.state}"
    emit(session, document, text)


@takes(
    argument(
        "proposal_ids",
        "ID…",
        "Numbers of proposals; - reads them from stdin.",
        many=True,
        complete="proposal",
    ),
    CHUNK,
    ATOMIC,
    FAILED_TO,
    JSONL,
)
@examples(
    "tb-cli compute-market params approve 1",
    "tb-cli compute-market params approve 2 3 --atomic",
)
def approve(
    session: Session,
    proposal_ids: list[str],
    *,
    chunk: int | None,
    atomic: bool,
    failed_to: str | None,
    jsonl: bool,
) -> int:
    """It is in force from the begin of the second epoch after this one on. The height is fixed now,
    and the first command from then on writes it down. One that was approved before is left as it
    is, and one that was rolled back must be proposed again.
    """
    from compute_market.governance import proposals
    from tb_cli.frame import bulk
    from tb_cli.frame.ids import Ids

    def act(txn: Txn, proposal_id: str) -> bulk.Outcome:
        found = _number(proposal_id)
        try:
            proposal, document = proposals.approve(txn, found)
        except (NotFoundError, RefusedError) as error:
            refused = {"id": found, "changed": False}
            return bulk.Outcome(proposal_id, error.message, refused, error)
        text = f"proposal {proposal.id} is {proposal.state}: unchanged"
        if document["changed"]:
            text = f"approved proposal {proposal.id}: {_text(proposal)} from "
            text += f"height {proposal.activates_at} on"
        return bulk.Outcome(proposal_id, text, document)

    for each in proposal_ids:
        if each != "-":
            _number(each)
    ids = Ids(proposal_ids, "ID", keep=failed_to is not None)
    return bulk.run(
        session,
        ids,
        act,
        id_field="id",
        chunk=chunk,
        atomic=atomic,
        jsonl=jsonl,
        failed_to=failed_to,
        source=ids,
    )


@takes(KEY)
@examples(
    "tb-cli compute-market params rollback",
    "tb-cli compute-market params rollback --key undo-1",
)
def rollback(session: Session, *, key: str | None) -> None:
    """The parameter has the value from before at once. Once more undoes the one before it, of any
    parameter; those that are approved and wait come into force all the same. With --key it can be
    repeated and goes back no further.
    """
    from compute_market.governance import proposals

    proposal, restored, document = session.update(lambda txn: proposals.roll_back(txn, key))
    now = _value_of(session, proposal, restored)
    source = "as configured" if restored is None else f"by proposal {restored.proposal}"
    text = f"rolled back proposal {proposal.id}: {proposal.key} is {now} again, {source}"
    if not document["changed"]:
        text = f"key {key} was used: unchanged; {proposal.key} is {now}, {source}"
    emit(session, document, text)


def _number(text: str) -> int:
    """The number of a proposal. Raises UsageError."""
    from tb_cli.frame.values import value_of  # Most commands only look.

    found: int = value_of(number("proposal_id", "ID", "", least=1, most=AMOUNT_MAX), text)
    return found


def _text(proposal: "Proposal") -> str:
    from compute_market.governance import parameters

    return f"{proposal.key} {parameters.text(proposal.key, proposal.value)}"


def _value_of(session: Session, proposal: "Proposal", restored: "Parameter | None") -> str:
    """What a parameter is from now on, as a text."""
    from compute_market.governance import parameters

    key = proposal.key
    value = parameters.of(session.config, key) if restored is None else restored.value
    return parameters.text(key, value)
