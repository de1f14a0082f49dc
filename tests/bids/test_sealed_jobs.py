"""The job in a bid: what is sealed comes out again, and nothing else is taken for a job."""

import json
from typing import Any

import pytest

from compute_market.bids import sealed_jobs
from compute_market.errors import IntegrityError
from compute_market.records import Slice
from compute_market.requests import JobRequest, build
from tests.support.bids import state


def test_job_comes_out_as_it_went_in() -> None:
    fields: dict[str, Any] = {
        "job_id": "j-1",
        "buyer": "alice",
        "workload": "transcode",
        "slices": ["a", {"path": "b"}],
        "max_price_per_unit": 2**63 - 1,
        "capability": {"gpu": ["A", "B"], "gpu_count": 2},
        "deadline": 1_900_000_000,
        "priority": "high",
        "consumer_bond": 3,
    }
    inputs = [Slice("/x/a é", 2**40, bytes(range(32))), Slice("/x/b", 1, bytes(32))]
    request, found = sealed_jobs.job_of(
        sealed_jobs.state_of(build(fields, JobRequest, "it"), inputs)
    )
    assert found == inputs
    again = build(fields | {"slices": ["a", "b"]}, JobRequest, "it")
    for name in fields.keys() - {"slices"}:
        assert getattr(request, name) == getattr(again, name), name


def change(**changes: Any) -> bytes:
    return json.dumps(json.loads(state()) | changes).encode()


def job(**changes: Any) -> bytes:
    return change(job=json.loads(state())["job"] | changes)


SLICE = {"path": "/a", "reference": "00" * 32}


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{}", b"[]", b"null", b"\xff", b"[" * 100_000, state()[:-1], state() + b"x"),
        *(change(more=1), change(job=[]), change(job={}), change(lengths=None)),
        *(change(lengths=[]), change(lengths=[1, 2]), change(lengths=[-1]), change(lengths=[1.0])),
        *(change(lengths=["1"]), change(lengths=[True]), change(lengths=[2**63])),
        *(job(slices=[]), job(slices=["/a"]), job(slices=[{"path": "/a"}])),
        *(job(slices=[SLICE | {"path": "a"}]), job(slices=[SLICE | {"reference": "0"}])),
        *(job(unknown=1), job(buyer="a/b"), job(max_price_per_unit=-1)),
        *(job(deadline=1, deadline_secs=1), state().replace(b'"job"', b'"job":{},"job"', 1)),
        *(
            job(slices=[SLICE | {"path": f"/a{text}b"}])
            for text in "\0\n\t\x1b\x7f\x85\u2028\ud800"
        ),
        job(slices=[SLICE | {"path": "/" + "é" * 2048}]),
        b'{"job":' + b"9" * 10_000 + b',"lengths":[]}',
    ],
    ids=range(39),
)
def test_anything_else_is_malformed(content: bytes) -> None:
    with pytest.raises(IntegrityError) as caught:
        sealed_jobs.job_of(content)
    assert caught.value.reason == "malformed"
