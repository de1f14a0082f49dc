"""What the market keeps of jobs and receipts that it has archived, and how that is stored."""

from msgspec import Struct

from compute_market.records import Actor, JobState


class ArchivedJob(Struct, frozen=True, array_like=True, gc=False):
    """What is left of an ended job: its id stays taken, and it is known how it ended."""

    state: JobState
    ended_at: int
    ended_by: Actor | None
    handed_over: int = 0  # times it went over to another provider


class ArchivedReceipt(Struct, frozen=True, array_like=True, gc=False):
    """What is left of a receipt. Its key is made of three ids that run together: where one ends
    tells it from any other receipt with that key."""

    job_id_length: int
    buyer_length: int
    is_applied: bool  # else it was recorded and never moved money


class Archive(Struct, frozen=True, array_like=True, gc=False):
    """A file of archived records. What it holds in its first `length` bytes is in it alone."""

    path: str
    before: int  # jobs that ended before this second, and postings
    begun_ms: int
    length: int
    digest: bytes  # BLAKE3 of them
    jobs: int = 0
    receipts: int = 0
    postings: int = 0
    closed_ms: int | None = None
