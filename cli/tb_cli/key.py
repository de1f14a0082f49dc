"""Verbs on keys: new, list, show, import-public."""

import sys
from contextlib import suppress
from itertools import islice
from typing import Any

from compute_market.errors import (
    ConflictError,
    MarketError,
    NotFoundError,
    UsageError,
    check_same,
)
from compute_market.signatures import keys
from compute_market.signatures.keys import Key
from compute_market.signatures.signatures import ALGORITHM
from tb_cli.frame import key_files, lines, new_keys
from tb_cli.frame.listing import lists
from tb_cli.frame.listing.columns import Column, Noun
from tb_cli.frame.listing.options import LISTED, among, columns_of
from tb_cli.frame.listing.reading import AtHand
from tb_cli.frame.listing.selecting import chosen
from tb_cli.frame.options import are_several
from tb_cli.frame.render import emit, note
from tb_cli.frame.session import Session
from tb_cli.frame.verbs import argument, examples, flag, takes

# Bytes of a public file that are read; one has about 4000.
_FILE_MAX = 2**16
_KIND = among("--kind", "Only those of a kind: own or public.", allowed=("own", "public"))
_KEYS = Noun(
    "keys",
    "name",
    (Column("name"), Column("key_id", "ID"), Column("kind")),
    shown=("name", "key_id", "kind"),
    table=("name", "kind", "key_id"),
    ranked=True,
)
_NEW_NAME = argument("name", "NAME", "What to call it here.")


@examples("tb-cli key new mine")
@takes(_NEW_NAME)
def new(session: Session, name: str) -> None:
    """It signs with ML-DSA-65 (FIPS 204). Its file, `keys/NAME.key` in the home, holds the
    secret, and no backup of the market has it. A name that is taken is exit 6.
    """
    with new_keys.alone(session, name):
        key = new_keys.make(session, name)
    document = _document(name, key) | {"changed": True}
    emit(session, document, f"made key {name}: {key.key_id.hex()}")


@examples("tb-cli key list")
@takes((_KIND,), LISTED)
@columns_of(_KEYS)
def list_(session: Session, *, filters: dict[str, Any], listing: dict[str, Any]) -> None:
    """A file that holds no key, or is unsafe, is an error behind all the others."""
    session.home.check_market()
    problems = []
    found = []
    for name in key_files.names(session.home):
        key = key_files.attempted(session.home, name)
        if isinstance(key, MarketError):
            problems.append(key)
        elif key is not None:  # Else it was taken away meanwhile.
            found.append(_document(name, key))
    kinds = chosen((_KIND,), filters).get("kind")
    wanted = (each for each in found if kinds is None or each["kind"] in kinds)
    lists.show(session, _KEYS, listing, AtHand(wanted))
    for problem in problems[1:]:
        note(f"warning: {problem.message}")
    if problems:
        raise problems[0]


@examples("tb-cli key show node")
@takes(
    argument(
        "names",
        "NAME|ID…",
        "Names or ids of keys; - reads them from stdin.",
        many=True,
        complete="key",
    ),
    flag("--public", help="Print the file that import-public takes, of one key."),
)
def show(session: Session, names: list[str], *, public: bool) -> int:
    """The secret of a key is never shown. Of several keys --json has a list."""
    if public and are_several(names):
        raise UsageError("--public prints the file of one key", hint="give one NAME")
    session.home.check_market()
    if public:
        _, key = key_files.named(session.home, names[0])
        sys.stdout.write(keys.public_text(key).decode())
        return 0
    from tb_cli.frame import several

    def find(_: object, asked: str) -> list[dict[str, Any]]:
        name, key = key_files.named(session.home, asked)
        more = {"algorithm": ALGORITHM, "public_key": key.public_key.hex()}
        return [_document(name, key) | more]

    return several.show(session, names, "key", find, at_hand=True)


@examples("tb-cli key import-public friend friend.pub")
@takes(
    _NEW_NAME,
    argument("file", "FILE|-", "What `key show --public` printed there, or - for stdin."),
)
def import_public(session: Session, name: str, file: str) -> None:
    """Compare the id it tells with what the owner of the key says. The same key again changes
    nothing; another one under the name, or a key of one's own under another, is exit 6.
    """
    key_files.check_name(name)
    # One line is all that there is in such a file.
    text = b"".join(islice(lines.Lines(file, _FILE_MAX), 2))
    given = keys.parse_public(text, lines.source_of(file))
    with new_keys.alone(session, name):
        found = key_files.find(session.home, name)
        if found is not None:
            stored, asked = ({"id": key.key_id.hex()} for key in (found, given))
            check_same(f"key {name}", stored, asked, hint="choose another name")
        else:
            _check_not_own(session, given)
        changed = found is None or key_files.is_begun(session.home, name)
        key = found or given
        if changed:
            new_keys.keep(session, name, key)
    document = _document(name, key) | {"changed": changed}
    text_ = "imported key {}: {}" if changed else "key {} exists, unchanged: {}"
    emit(session, document, text_.format(name, key.key_id.hex()))


def _check_not_own(session: Session, given: Key) -> None:
    """Raise ConflictError for the public part of a key of one's own, which needs no other name."""
    with suppress(NotFoundError):
        name, key = key_files.named(session.home, given.key_id.hex())
        if key.seed is not None:
            raise ConflictError(
                f"{key.key_id.hex()} is a key of your own, {name}",
                hint=f"use it by that name; `tb-cli key show {name} --public` is for others",
            )


def _document(name: str, key: Key) -> dict[str, Any]:
    kind = "public" if key.seed is None else "own"
    return {"name": name, "key_id": key.key_id.hex(), "kind": kind}
