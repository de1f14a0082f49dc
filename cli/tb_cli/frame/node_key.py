"""The key of one's own that signs what goes to other markets."""

from compute_market.signatures.keys import Key
from tb_cli.frame import key_files, new_keys
from tb_cli.frame.render import note
from tb_cli.frame.session import Session


def node_key(session: Session) -> Key:
    """The key that the setting `key` of [net] names, made and told of where there is none.

    In a dry run that one is not kept.
    Raises what `key_files.own` and `new_keys.make` raise.
    """
    name = session.config.net_key
    if key_files.find(session.home, name) is None:
        with new_keys.alone(session, name):
            # Unless another process was faster, or made its file and not yet its note in the log.
            if key_files.find(session.home, name) is None or key_files.is_begun(session.home, name):
                key = new_keys.make(session, name)
                # One that a dry run makes is gone afterwards: nobody is to trust it.
                key_id = "" if session.dry_run else f": {key.key_id.hex()}"
                mark = "dry_run: " if session.dry_run else ""
                note(f"{mark}made key {name}, which signs what goes to other markets{key_id}")
                return key
    return key_files.own(session.home, name)
