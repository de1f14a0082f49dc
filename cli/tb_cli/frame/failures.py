"""Items that could not be acted on, and what is said of each."""

from compute_market.errors import MarketError, NotFoundError
from compute_market.text import is_nearest
from tb_cli.frame.bulk import Outcome


def failed(
    name: str,
    error: MarketError,
    text: str | None = None,
    *,
    id_field: str = "job_id",
    changed: bool = False,
) -> Outcome:
    """The outcome of an item that could not be acted on, or not to the end."""
    document = {id_field: name, "changed": changed}
    # What is not there is named by the error that says so, and so is a line that is wrong.
    is_named = (
        text is not None
        or isinstance(error, NotFoundError)
        or error.message.startswith(name)
        or _names(error.message, f"{id_field.removesuffix('_id')} {name}")
    )
    detail = (error.hint or "") if is_nearest(error.hint) else ""
    return Outcome(name, text or error.message, document, error, is_named, detail=detail)


def _names(message: str, item: str) -> bool:
    """Whether a message speaks of an item: `job j-1`."""
    _, found, rest = message.partition(item)
    return bool(found) and rest[:1] in ("", " ", ",", ";")
