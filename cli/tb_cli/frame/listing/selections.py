"""Jobs and offers that options select to be acted upon."""

from collections.abc import Mapping
from typing import Any

from compute_market.jobs import jobs, pages
from compute_market.jobs.selection import Selection
from compute_market.offers import offers
from compute_market.offers import selection as of_offers
from compute_market.records import LIVE_STATES, OFFER_STATES, JobState, replace
from compute_market.store.txn import Txn
from tb_cli.frame.listing.jobs import selection
from tb_cli.frame.listing.offers import FILTERS
from tb_cli.frame.listing.selecting import chosen
from tb_cli.frame.selected import Selected


def asked_jobs(
    filters: Mapping[str, Any],
    states: tuple[JobState, ...] = LIVE_STATES,
    held: bool | None = None,
) -> Selection:
    """The jobs that options select, unless they ask for others in these states, and held or not."""
    asked = selection(filters)
    if not asked.states:
        asked = replace(asked, states=states)
    return asked if asked.held else replace(asked, held=held)


def selected_offers(filters: Mapping[str, Any]) -> Selected:
    """The offers that options select, those that are not withdrawn unless others are asked for.

    Raises UsageError for a value that cannot be.
    """
    values = chosen(FILTERS, filters)
    asked = of_offers.Selection(
        tuple(state for state in OFFER_STATES if state in values.get("state", of_offers.LIVE)),
        values.get("provider", ()),
    )

    def page(txn: Txn, after: Any, size: int) -> tuple[list[str], Any]:
        found, last = of_offers.page(txn, asked, after, size)
        return [offer.offer_id for offer in found], last

    def is_still(txn: Txn, offer_id: str) -> bool:
        offer = offers.find(txn, offer_id)
        return offer is not None and asked.wants(offer)

    return Selected("offer", page, is_still)


def selected_jobs(asked: Selection) -> Selected:
    def page(txn: Txn, walk: Any, size: int) -> tuple[list[str], Any]:
        found, walk = pages.page(txn, asked, walk, size)
        return [job.job_id for job in found], walk

    def is_still(txn: Txn, job_id: str) -> bool:
        job = jobs.find(txn, job_id)
        return job is not None and asked.check(txn.now)(job)

    return Selected("job", page, is_still)
