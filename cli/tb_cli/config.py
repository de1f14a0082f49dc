"""Verbs on the configuration: show."""

from typing import Any

from compute_market.config import files as config
from tb_cli.frame.render import Listing
from tb_cli.frame.session import Session


def show(session: Session) -> None:
    loaded, origins = session.configuration()
    listing = Listing(session, ("name", "value", "origin"))
    for name, value, origin in config.describe(loaded, origins):
        document: dict[str, Any] = {"name": name, "value": value, "origin": origin}
        listing.add(document)
    listing.end()
