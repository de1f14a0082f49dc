"""The job in a sealed bid: the exact bytes that are committed to, and the job that they ask for.

They are the fields of a job file, with slices by absolute paths and their references, and beside
them the lengths of the slices: a market takes the job at the reveal without reading a slice.
"""

from typing import Any

from msgspec import json, to_builtins

from compute_market.errors import IntegrityError, UsageError
from compute_market.json_documents import parse
from compute_market.records import Slice
from compute_market.requests import JobRequest, SliceRequest, build
from compute_market.text import clipped, printable

_LENGTH_MAX = 2**63 - 1
_PATH_BYTES_MAX = 4095  # PATH_MAX, less the byte that ends it
# Control characters, line and paragraph separators, and halves of surrogate pairs.
_NO_TEXT = frozenset((*range(32), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0xD800, 0xE000)))


def state_of(request: JobRequest, inputs: list[Slice]) -> bytes:
    """The bytes of a bid for a job whose slices were measured and hashed."""
    job: dict[str, Any] = to_builtins(request)
    job["slices"] = [{"path": entry.path, "reference": entry.reference.hex()} for entry in inputs]
    return json.encode({"job": job, "lengths": [entry.length for entry in inputs]})


def job_of(state: bytes) -> tuple[JobRequest, list[Slice]]:
    """The job that a bid asks for, and its slices. Raises IntegrityError (`malformed`)."""
    try:
        document = parse(state, _WHAT)
        job, lengths = document.pop("job", None), document.pop("lengths", None)
        if document or not isinstance(job, dict):
            raise UsageError(f"{_WHAT}: it is not a job and the lengths of its slices")
        request = build(job, JobRequest, _WHAT)
        return request, _slices(request.slice_requests(), lengths)
    except UsageError as error:
        raise IntegrityError(error.message, hint=error.hint, reason="malformed") from error


def check_path(path: str, what: str) -> None:
    """Raise UsageError unless a path may be sealed: text without control characters, and no
    longer than a system can open."""
    length = len(path.encode(errors="surrogatepass"))
    if length > _PATH_BYTES_MAX or any(map(_NO_TEXT.__contains__, map(ord, path))):
        raise UsageError(
            f"{what}: the path of a slice is no text of one line and at most {_PATH_BYTES_MAX} "
            f"bytes: {clipped(printable(path))}"
        )


_WHAT = "the sealed job"


def _slices(requests: list[SliceRequest], lengths: Any) -> list[Slice]:
    if not isinstance(lengths, list) or len(lengths) != len(requests):
        raise UsageError(f"{_WHAT}: it has not one length for each slice")
    found = []
    for entry, length in zip(requests, lengths, strict=True):
        if type(length) is not int or not 0 <= length <= _LENGTH_MAX:
            raise UsageError(f"{_WHAT}: a slice has no length")
        if not entry.path.startswith("/") or entry.reference is None:
            raise UsageError(f"{_WHAT}: a slice has no absolute path or no reference")
        check_path(entry.path, _WHAT)
        found.append(Slice(entry.path, length, bytes.fromhex(entry.reference)))
    return found
