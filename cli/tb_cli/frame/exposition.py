"""Every metric of a home: what its market tells, and what its files do."""

from compute_market import exposition
from compute_market.exposition import Files
from compute_market.store.usage import Usage, measured
from tb_cli.frame import last_backup
from tb_cli.frame.session import Session


def text(session: Session) -> str:
    """They in the Prometheus text format. Changes nothing."""
    files = files_of(session)
    return session.view(lambda txn: exposition.render(txn, files))


def files_of(session: Session) -> Files:
    """What the files of the home tell now."""
    usage = measured(session.market.store)
    backup = last_backup.last(session.home)
    return Files(usage.bytes, _map_used(usage), 0 if backup is None else backup.at_ms)


def _map_used(usage: Usage) -> float:
    """Part of the map that is in use: what is free in the file is used before that grows."""
    return (usage.pages - usage.free_pages) * usage.page_bytes / usage.map_bytes
