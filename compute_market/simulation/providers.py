"""The providers of a simulated world: their offers, their prices, their coming and going."""

from collections.abc import Iterator
from decimal import Decimal

from compute_market.jobs import preempt
from compute_market.jobs.submit import post_offer
from compute_market.offers import offers
from compute_market.records import Token
from compute_market.requests import OfferRequest
from compute_market.settlement import ledger
from compute_market.simulation.draws import Stream, draw
from compute_market.simulation.scenario import Providers, Scenario, ppm
from compute_market.simulation.stage import Stage
from compute_market.store.txn import Txn


class Provider:
    """One provider, with at most one open offer at a time."""

    def __init__(self, stage: Stage, seed: int, group: Providers, name: str) -> None:
        self.name = name
        self.group = group
        self.is_there = False
        self.has_left = False  # for good
        self._stage = stage
        self._offers = Stream(seed, f"offers of {name}")
        self._work = Stream(seed, f"work of {name}")
        self._stays = Stream(seed, f"stays of {name}")
        self._price = draw(self._offers, group.price_per_unit)
        self._reliability_ppm = ppm(group.reliability)
        self._posted = 0
        self._offer_id: str | None = None

    def come(self, txn: Txn) -> None:
        """Open for business, the first time with a wallet."""
        if not self._posted:
            self.settle_in(txn)
        self.is_there = True
        self._post(txn)

    def settle_in(self, txn: Txn) -> None:
        """Be there with a wallet, and offer nothing yet."""
        self.is_there = True
        money: dict[Token, int] = {"CT": self.group.ct, "IT": 0}
        self._stage.attempt(
            "deposit", self.name, lambda: ledger.tap(txn, "deposit", self.name, money, None)
        )

    def go(self, txn: Txn) -> None:
        """Offer nothing any more; jobs that are running are another matter."""
        self.is_there = False
        self._withdraw(txn)

    def change_price(self, number: int, txn: Txn) -> None:
        """Ask for something else from now on: what its change of that number says."""
        self._price = draw(self._offers, self.group.price_changes[number].price_per_unit)
        if self.is_there:
            self._withdraw(txn)
            self._post(txn)

    def restock(self, txn: Txn, offer_id: str) -> None:
        """Post anew if the offer is its present one and less than half of it is left."""
        if not (self.is_there and self.group.restocks and offer_id == self._offer_id):
            return
        offer = offers.get(txn, offer_id)
        if offer.units_left * 2 < offer.units:
            self._withdraw(txn)  # What a job gives back to it is not to be had beside the new one.
            self._post(txn)

    def does_job(self) -> bool:
        """Whether it does a job that it is given now; a draw."""
        return self.group.serves and self._work.happens(self._reliability_ppm)

    def unit_ms(self) -> int:
        """How long a unit takes of a job that it is given now; a draw."""
        return draw(self._work, self.group.unit_ms)

    def stay_ms(self) -> int:
        """How long it stays now that it has come; a draw."""
        assert self.group.up_secs is not None
        return max(1, draw(self._stays, self.group.up_secs)) * 1_000

    def away_ms(self) -> int:
        """How long it is away now that it has gone; a draw."""
        assert self.group.down_secs is not None
        return max(1, draw(self._stays, self.group.down_secs)) * 1_000

    def _withdraw(self, txn: Txn) -> None:
        offer_id, self._offer_id = self._offer_id, None
        if offer_id is not None:
            self._stage.attempt("withdraw", offer_id, lambda: offers.withdraw(txn, offer_id))

    def _post(self, txn: Txn) -> None:
        """Post an offer, which takes a running job over where the settings let it."""
        self._posted += 1
        offer_id = f"{self.name}-{self._posted}"
        request = self._request(offer_id)
        self._offer_id = offer_id if self.post(txn, request) else None

    def post(self, txn: Txn, request: OfferRequest) -> bool:
        """Post this very offer beside those it has; whether the market took it."""
        offer_id = request.offer_id or ""
        posted = self._stage.attempt("post", offer_id, lambda: post_offer(txn, request))
        if posted is not None and txn.config.enable_preempt:
            takeover = preempt.proposed(txn, posted.offer)
            if takeover is not None:
                job_id = takeover.job.job_id
                self._stage.attempt(
                    "take over", job_id, lambda: preempt.take_over(txn, job_id, offer_id)
                )
        return posted is not None

    def _request(self, offer_id: str) -> OfferRequest:
        group = self.group
        return OfferRequest(
            provider=self.name,
            units=draw(self._offers, group.units),
            price_per_unit=self._price,
            offer_id=offer_id,
            fee_pct_ct=group.fee_pct_ct,
            provider_bond=group.provider_bond,
            consumer_bond=group.consumer_bond,
            capability=group.capability,
            reputation=group.reputation,
            reputation_multiplier=format(Decimal(group.reputation_multiplier), "f"),
        )


def providers(stage: Stage, scenario: Scenario) -> Iterator[Provider]:
    """All providers of a scenario, in its order."""
    for group in scenario.providers:
        for number in range(1, group.count + 1):
            yield Provider(stage, scenario.seed, group, f"{group.name}-{number}")
