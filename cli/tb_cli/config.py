"""Verbs on the configuration: show, init, path."""

import os
from typing import TYPE_CHECKING, Any

from compute_market.config import files, shown
from compute_market.errors import ConflictError, MarketError, UsageError
from compute_market.text import clipped, printable
from tb_cli.frame import private_files
from tb_cli.frame.listing import lists
from tb_cli.frame.listing.columns import Column, Noun
from tb_cli.frame.listing.options import LISTED, columns_of
from tb_cli.frame.listing.reading import AtHand
from tb_cli.frame.render import emit, fields, note
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import argument, examples, takes

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


@takes(
    argument("key", "[KEY]", "A setting; all of them without.", required=False, complete="setting"),
    LISTED,
)
@examples(
    "tb-cli config show",
    "tb-cli config show scheduler.slots",
    "tb-cli config show scheduler.slots --json",
)
@columns_of(_SETTINGS)
def show(session: Session, key: str | None, *, listing: dict[str, Any]) -> None:
    """It shows what is configured. Where the market of the home has another value in force by a
    proposal, that is told beside; see `compute-market params`. Of one setting it tells as well
    what it means, what it may be and its default.
    """
    setting = None if key is None else shown.setting_of(key)
    if setting is not None and any(listing.values()):
        raise UsageError("KEY shows one setting, and options of lists are for all of them")
    loaded, origins = session.configuration()
    overridden = _overridden(session)
    typed = session.json or listing.get("jsonl") or listing.get("output") in ("json", "jsonl")
    documents = []
    for found in shown.describe(loaded, origins):
        document: dict[str, Any] = {
            "name": found.name,
            "value": found.typed if typed else found.value,
            "origin": found.origin,
        }
        if found.name in overridden and (setting is None or setting.name == found.name):
            number, text, proposal = overridden[found.name]
            document |= {"in_force": number if typed else text, "proposal": proposal}
            if not typed:
                instead = f"not {found.value} as configured"
                note(f"{found.name} is {text} by proposal {proposal}, {instead}")
        documents.append(document)
    if setting is None:
        lists.show(session, _SETTINGS, listing, AtHand(documents))
        return
    (document,) = (each for each in documents if each["name"] == setting.name)
    default = shown.default_of(setting)
    document |= {
        "default": default.typed if typed else default.value,
        "variable": setting.variable,
        "allowed": setting.limits,
        "meaning": " ".join(setting.help.split()),
    }
    emit(session, document, fields(document))


@takes(argument("to", "[-]", "- prints it instead.", required=False))
@examples("tb-cli config init", "tb-cli config init -")
def init(session: Session, to: str | None) -> None:
    """It goes into the home, which is made if it is not there, and is called `config.toml`. Every
    setting is in it with its meaning and its default, switched off: the file changes nothing before
    you do. One that is there is never overwritten.
    """
    text = files.render_default(switched_off=True)
    if to is not None:
        if to != "-":
            raise UsageError(
                f"the file is made in the home, and not as {clipped(printable(to))}",
                hint="--home says in which home; `tb-cli config init -` prints it, for > FILE",
            )
        emit(session, {"text": text}, text.rstrip("\n").split("\n"))
        return
    path = session.home.config
    session.home.check()
    try:
        there = files.content_of(path)
    except UsageError as error:
        raise ConflictError(error.message, hint="move it out of the way") from error
    if there is not None:
        if there != text.encode():
            raise _exists(path)
        emit(session, {"path": path, "changed": False}, f"{path} is there, unchanged")
        return
    if not session.dry_run:
        session.home.make()
        temporary = f"{path}.{os.urandom(8).hex()}.new"
        private_files.write_new(temporary, text.encode())
        try:
            if not private_files.give_name(temporary, path):
                raise _exists(path)
        finally:
            os.unlink(temporary)
    emit(session, {"path": path, "changed": True}, f"wrote {path}")


@examples("tb-cli config path")
def path(session: Session) -> None:
    """It need not be there."""
    found = session.home.config
    emit(session, {"path": found, "exists": os.path.isfile(found)}, found)


def _exists(path: str) -> ConflictError:
    return ConflictError(
        f"{path} exists, and is never overwritten",
        hint="edit it; `tb-cli config init -` prints what a new one would hold",
    )


def _overridden(session: Session) -> dict[str, tuple[int | float, str, int]]:
    """Value in force, as JSON and as text, and proposal of each setting that a proposal overrides.

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
        key: (
            parameters.number(key, parameter.value),
            parameters.text(key, parameter.value),
            parameter.proposal,
        )
        for key, parameter in found.items()
    }
