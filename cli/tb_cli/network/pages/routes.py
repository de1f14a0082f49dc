"""Where the pages are, and how each is answered. Nothing can be changed by them."""

from collections.abc import Callable
from typing import Any, Final

from msgspec import Struct, structs
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from compute_market import chain, concerns
from compute_market.errors import IntegrityError, MarketError, NotFoundError, UsageError
from compute_market.store.txn import Txn
from tb_cli.frame.clocks import now_ms
from tb_cli.frame.exposition import files_of
from tb_cli.network import answers
from tb_cli.network.disclosure import public
from tb_cli.network.node import Node
from tb_cli.network.pages import documents
from tb_cli.network.pages.documents import Asked
from tb_cli.network.pages.rendering import Renderer
from tb_cli.network.server import Endpoint

# No script, style or picture but our own, and no page of others around it.
SECURITY: Final = {
    "content-security-policy": "default-src 'none'; style-src 'self'; script-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
_KEPT: Final = {"cache-control": "public, max-age=31536000, immutable"}
_NOT_KEPT: Final = {"cache-control": "no-store"}
_RETRY_SECS: Final = 1
_SEQ_DIGITS_MAX: Final = 19

_Document = Callable[[Txn, Asked], dict[str, Any]]


class Page(Struct, frozen=True, gc=False):
    """A page: its template, and what it shows."""

    template: str
    document: _Document
    tells_of_files: bool = False  # those of the home, beside the market


PAGES: Final = {
    "/": Page("home", documents.home, tells_of_files=True),
    "/jobs": Page("jobs", documents.all_jobs),
    "/jobs/{id}": Page("job", documents.job),
    "/offers": Page("offers", documents.all_offers),
    "/offers/{id}": Page("offer", documents.offer),
    "/parties": Page("parties", documents.all_parties),
    "/parties/{id}": Page("party", documents.party),
    "/prices": Page("prices", documents.prices),
    "/settlement": Page("settlement", documents.settled),
    "/courier": Page("courier", documents.couriered),
    "/events": Page("events", documents.log),
}


class Pages:
    """What answers for the pages of a market, each of which is one look at it."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._renderer = Renderer()

    def endpoints(self) -> dict[str, Endpoint]:
        """By path what answers a GET."""
        found = {path: self._of(page) for path, page in PAGES.items()}
        return found | {"/static/{name}": self._static}

    def _of(self, page: Page) -> Endpoint:
        async def answer(request: Request) -> Response:
            try:
                asked = _asked_of(request)
                if page.tells_of_files:
                    files = await run_in_threadpool(files_of, self._node.session)
                    asked = structs.replace(asked, files=files)
                document = await self._node.look(
                    lambda txn: public(_base(txn) | page.document(txn, asked))
                )
            except MarketError as error:
                answers.tell(request, error.message)
                return await run_in_threadpool(self._failed, error)
            return _html(await run_in_threadpool(self._renderer.page, page.template, document))

        return answer

    def _failed(self, error: MarketError) -> Response:
        """What is wrong, in as many words as anybody may have; the log tells the rest."""
        status, title, *told = _told(error)
        document = {"now_ms": now_ms(), "timely": True, "market_id": self._node.market_id.hex()}
        more = {"status": status, "title": title, "told": told}
        body = self._renderer.page("error", document | more)
        found = _html(body, status)
        if status == 503:
            found.headers["retry-after"] = str(_RETRY_SECS)
        return found

    async def _static(self, request: Request) -> Response:
        found = self._renderer.static.get(request.path_params["name"])
        if found is None:
            return await run_in_threadpool(self._failed, NotFoundError("there is no such file"))
        return Response(found.content, media_type=found.kind, headers=SECURITY | _KEPT)


def _base(txn: Txn) -> dict[str, Any]:
    """What every page shows."""
    return {
        "now_ms": txn.now_ms,
        "timely": txn.timely,
        "market_id": chain.market_id(txn).hex(),
    }


def _asked_of(request: Request) -> Asked:
    """What is asked of a page. Raises UsageError for a place where no listing goes on."""
    query = request.query_params
    before = query.get("before")
    if before is not None and not (
        before.isascii() and before.isdigit() and len(before) <= _SEQ_DIGITS_MAX
    ):
        raise UsageError("before is the number of an event")
    return Asked(
        request.path_params.get("id", ""),
        query.get("after"),
        None if before is None else int(before),
        query.get("list") == "all",
    )


def _told(error: MarketError) -> tuple[int, str, *tuple[str, ...]]:
    """The status of an answer that shows no page, its title, and what it says, way out last."""
    if isinstance(error, NotFoundError):
        return 404, "Not found", error.message
    if isinstance(error, UsageError):
        return 400, "Not understood", error.message
    if error.retryable:
        return 503, "Not now", "the market is busy; this page tries again by itself"
    if isinstance(error, IntegrityError):
        what = "something that this page is made of is damaged; the log of the server says what"
        return 500, "Damaged", what, f"what to do: {concerns.DAMAGE.way_out}"
    return 500, "Failed", "this failed here; the log of the server says why"


def _html(body: bytes, status: int = 200) -> Response:
    headers = SECURITY | _NOT_KEPT
    return Response(body, status, media_type="text/html", headers=headers)
