"""Events as a list: one of the whole log, or of one job."""

from typing import Any

from compute_market import events
from compute_market.events import Logged
from compute_market.text import clipped
from tb_cli.frame.render import Listing
from tb_cli.frame.session import Session

# On a terminal the command line is clipped; pipes and JSON have all of it.
_TABLE = ("at_ms", "event", "what", "who")
_COMMAND_MAX = 60


class EventListing:
    """A listing of events; on a terminal, what an event is about shares one column."""

    def __init__(self, session: Session, *, jsonl: bool, at_once: bool = False) -> None:
        self._listing = Listing(session, events.COLUMNS, table=_TABLE, jsonl=jsonl, at_once=at_once)

    def add(self, logged: Logged) -> None:
        document = events.document(logged)
        self._listing.add(_for_eyes(document) if self._listing.for_eyes else document)

    def end(self) -> None:
        self._listing.end()


def _for_eyes(document: dict[str, Any]) -> dict[str, Any]:
    ids = ("job_id", "offer_id", "owner")
    about = {name.removesuffix("_id"): document[name] for name in ids if name in document}
    who = f"{document['user']}: {clipped(document['command'], _COMMAND_MAX)}"
    return document | {"what": about | document["detail"], "who": who}
