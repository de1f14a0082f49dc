"""Verbs on the configuration: show."""

from typing import TYPE_CHECKING, Any

from compute_market.config import files as config
from compute_market.errors import MarketError
from tb_cli.frame.listing import lists
from tb_cli.frame.listing.columns import Column, Noun
from tb_cli.frame.listing.options import LISTED
from tb_cli.frame.listing.reading import AtHand
from tb_cli.frame.render import note
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import takes

if TYPE_CHECKING:
    from compute_market.governance_records import Parameter


_SETTINGS = Noun(
    "settings",
    "name",
    (
        Column("name"),
        Column("value", kind="long"),
        Column("origin"),
        Column("in_force"),
        Column("proposal", kind="number"),
    ),
    shown=("name", "value", "origin"),
    ranked=True,
)


@takes(LISTED)
def show(session: Session, *, listing: dict[str, Any]) -> None:
    """It shows what is configured. Where the market of the home has another value in force by a
    proposal, that is told beside; see `compute-market params`.
    """
    loaded, origins = session.configuration()
    overridden = _overridden(session)
    documents = []
    for name, value, origin in config.describe(loaded, origins):
        document: dict[str, Any] = {"name": name, "value": value, "origin": origin}
        if name in overridden:
            text, proposal = overridden[name]
            document |= {"in_force": text, "proposal": proposal}
            if not session.json:
                note(f"{name} is {text} by proposal {proposal}, not {value} as configured")
        documents.append(document)
    lists.show(session, _SETTINGS, listing, AtHand(documents))


def _overridden(session: Session) -> dict[str, tuple[str, int]]:
    """Value in force and proposal of each setting that a proposal overrides.

    The configuration can be shown whatever the market is like.
    """
    if not session.home.has_market():
        return {}
    from compute_market.governance import governance, parameters

    try:
        found: dict[str, Parameter] = session.view(governance.standing).in_force
    except MarketError as error:
        note(f"warning: what proposals override is not known: {error.message}")
        return {}
    return {
        key: (parameters.text(key, parameter.value), parameter.proposal)
        for key, parameter in found.items()
    }
