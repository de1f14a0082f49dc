"""Job and offer files: what they may hold, and what is said about one that is wrong."""

import json
from collections.abc import Iterator
from decimal import Decimal
from itertools import chain, repeat
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compute_market import json_documents
from compute_market.amounts import AMOUNT_MAX
from compute_market.config.settings import DEFAULTS
from compute_market.errors import ConflictError, RefusedError, UsageError
from compute_market.jobs import drafts
from compute_market.json_documents import documents, parse
from compute_market.offers import posting
from compute_market.records import Capability, capability_document
from compute_market.requests import (
    DEADLINE_MAX,
    CapabilityRequest,
    JobRequest,
    OfferRequest,
    SliceRequest,
    build,
)
from tests.support.market import Market, slice_of

JOB: dict[str, Any] = {
    "job_id": "job",
    "buyer": "ann",
    "workload": "transcode",
    "slices": ["a.slice"],
    "max_price_per_unit": 10,
}
OFFER: dict[str, Any] = {"provider": "bob", "units": 10, "price_per_unit": 5}


def job(**fields: Any) -> JobRequest:
    return build(parse(json.dumps(JOB | fields).encode(), "job.json"), JobRequest, "job.json")


def offer(**fields: Any) -> OfferRequest:
    content = json.dumps(OFFER | fields).encode()
    return build(parse(content, "offer.json"), OfferRequest, "offer.json")


def raw_offer(field: str, literal: str) -> OfferRequest:
    """An offer whose file has the literal text for one field."""
    others = json.dumps({name: value for name, value in OFFER.items() if name != field})[1:]
    content = f'{{"{field}": {literal}, {others}'.encode()
    return build(parse(content, "offer.json"), OfferRequest, "offer.json")


def refusal(function: Any, *arguments: Any, **fields: Any) -> str:
    """What is said about bad input: one line, beginning with the name of the file."""
    with pytest.raises(UsageError) as caught:
        function(*arguments, **fields)
    message = caught.value.message
    assert message.startswith(("job.json", "offer.json", "file.json"))
    assert message.isprintable()
    assert len(message) < 300
    return message


# What is taken.


def test_build_fills_in_the_defaults_of_a_job() -> None:
    assert job() == JobRequest(
        job_id="job",
        buyer="ann",
        workload="transcode",
        slices=["a.slice"],
        max_price_per_unit=10,
        capability=CapabilityRequest(),
        consumer_bond=1,
        deadline=msgspec.UNSET,
        deadline_secs=msgspec.UNSET,
        priority="normal",
        lane="industrial",
    )


def test_build_fills_in_the_defaults_of_an_offer() -> None:
    found = offer()
    assert found == OfferRequest("bob", 10, 5)
    assert (found.fee_pct_ct, found.provider_bond, found.consumer_bond) == (100, 1, 1)
    assert (found.reputation, found.reputation_multiplier) == (0, "1")
    assert (found.offer_id, found.job_id, found.capability) == (None, None, CapabilityRequest())


def test_build_reads_both_forms_of_a_slice() -> None:
    found = job(slices=["a", {"path": "b"}, {"path": "c", "reference": "0aB1" * 16}])
    assert found.slice_requests() == [
        SliceRequest("a"),
        SliceRequest("b"),
        SliceRequest("c", "0aB1" * 16),
    ]


@pytest.mark.parametrize(
    ("asked", "stored"),
    [
        ({}, Capability()),
        ({"gpu": "A100"}, Capability(gpu="A100", gpu_count=1)),
        ({"gpu": "A100", "gpu_count": 4}, Capability(gpu="A100", gpu_count=4)),
        ({"gpu_count": 2, "gpu_memory_mb": 9}, Capability(gpu_count=2, gpu_memory_mb=9)),
        ({"gpu": None, "accelerator": None}, Capability()),
        (
            {"cpu_cores": 8, "accelerator": "TPU v5e", "accelerator_memory_mb": 7},
            Capability(cpu_cores=8, accelerator="TPU v5e", accelerator_memory_mb=7),
        ),
    ],
)
def test_capability_with_a_model_and_no_count_means_one(
    asked: dict[str, Any], stored: Capability
) -> None:
    assert job(capability=asked).capability.capability() == stored


@pytest.mark.parametrize("text", ["a", "_a", "9", "A.b:c@d+e-f_g", "x" * 128])
def test_build_takes_ids_that_pass_through_everything(text: str) -> None:
    assert job(job_id=text, buyer=text).job_id == text
    assert offer(provider=text, offer_id=text, job_id=text).offer_id == text


@pytest.mark.parametrize("amount", [0, 1, AMOUNT_MAX])
def test_build_takes_every_amount(amount: int) -> None:
    assert job(max_price_per_unit=amount).max_price_per_unit == amount
    assert offer(units=amount).units == amount


def test_build_takes_either_deadline() -> None:
    assert job(deadline=DEADLINE_MAX).deadline == DEADLINE_MAX
    assert job(deadline_secs=0).deadline_secs == 0


def test_parse_drops_comments_wherever_they_are() -> None:
    content = b"""{
        "_": "a comment", "_": "twice is fine",
        "capability": {"_why": ["x", {"a": 1}], "cpu_cores": 2},
        "slices": [{"path": "a", "_note": 1}]
    }"""
    assert parse(content, "f") == {"capability": {"cpu_cores": 2}, "slices": [{"path": "a"}]}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
)


def without_comments(document: Any) -> Any:
    if isinstance(document, dict):
        return {
            key: without_comments(value)
            for key, value in document.items()
            if not key.startswith("_")
        }
    return [without_comments(v) for v in document] if isinstance(document, list) else document


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=4), st.booleans())
def test_parse_reads_any_object(document: dict[str, Any], escaped: bool) -> None:
    content = json.dumps(document, ensure_ascii=escaped).encode()
    assert parse(content, "f") == without_comments(document)


def as_object(pairs: list[tuple[str, str]]) -> str:
    return "{" + ",".join(f'"{key}": {value}' for key, value in pairs) + "}"


PAIRS = st.recursive(
    st.sampled_from(
        ['":"', '"a:b"', '"a\\u003a"', "7", "1.50", "-0", "1e400", "true", "null", '"é"']
    ),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda parts: f"[{','.join(parts)}]")
        | st.lists(st.tuples(st.sampled_from(["a", "b", ":", "é"]), inner), max_size=3).map(
            as_object
        )
    ),
)


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "c:"]), PAIRS), max_size=4))
def test_parse_reads_the_same_with_a_comment_and_without(pairs: list[tuple[str, str]]) -> None:
    """A file without comments and escapes is read in a quicker way, which knows no equal keys."""

    def outcome(members: list[tuple[str, str]]) -> Any:
        try:
            return repr(parse(as_object(members).encode(), "f"))
        except UsageError as error:
            return error.message

    assert outcome(pairs) == outcome([("_", "1"), *pairs])


@given(
    st.dictionaries(st.sampled_from([*JOB, *OFFER, "capability", "deadline"]), JSON, max_size=4),
    st.sampled_from([(JobRequest, JOB), (OfferRequest, OFFER)]),
)
def test_build_takes_any_object_or_names_what_is_wrong(
    changes: dict[str, Any], kind: tuple[type, dict[str, Any]]
) -> None:
    document = parse(json.dumps(kind[1] | changes).encode(), "f")
    try:
        found: Any = build(document, kind[0], "f")
    except UsageError as error:
        found = error.message
    assert isinstance(found, kind[0]) or found.startswith("f: ")


# What is no JSON object.


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "line 1, column 1: expected a JSON object"),
        (b"{", "line 1, column 2: "),
        (b'{"a": 1,\n "b": }', "line 2, column 7: expected a value"),
        (b'{"a": 1} x', "line 1, column 10: nothing may follow here"),
        (b"{'a': 1}", "line 1, column 2: "),
        (b'{"a": 1,}', "line 1, column "),
        (b'{"a": 01}', "line 1, column 8: "),
        (b'{"a": "\n"}', "line 1, column 8: "),
        (b"\xef\xbb\xbf{}", "BOM"),
        (b'{"a": "\xff"}', "line 1, column 8: what stands here is not UTF-8"),
        ("{}".encode("utf-16"), "line 1, column 1: what stands here is not UTF-8"),
        (b'{"a": NaN}', "NaN is not a JSON number"),
        (b'{"a": Infinity}', "Infinity is not a JSON number"),
        (b'{"a": -Infinity}', "-Infinity is not a JSON number"),
        (b'{"a": 1, "a": 1}', "the key 'a' is given twice"),
        (b'{"capability": {"gpu": "A", "gpu": "B"}}', "the key 'gpu' is given twice"),
        (b'{"\xc3\xa9": 1, "\\u00e9": 1}', "the key '\\xe9' is given twice"),
        (b"[]", "expected a JSON object, got a list"),
        (b'"text"', "expected a JSON object, got a string"),
        (b"7", "expected a JSON object, got a number"),
        (b"7.5", "expected a JSON object, got a number"),
        (b"true", "expected a JSON object, got true or false"),
        (b"null", "expected a JSON object, got null"),
    ],
)
def test_parse_names_what_is_no_object(content: bytes, words: str) -> None:
    assert words in refusal(parse, content, "file.json")


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'{"a": [{"_": '])
def test_parse_refuses_nesting_without_end(opening: bytes) -> None:
    assert refusal(parse, opening * 10_000, "file.json") == "file.json: nested too deep"


@pytest.mark.parametrize(
    "number", ["1" * 5_000, "-" + "1" * 5_000, "1e99999999999999999999", "1e-99999999999999999999"]
)
def test_parse_refuses_numbers_no_field_could_hold(number: str) -> None:
    refusal(raw_offer, "units", number)
    refusal(raw_offer, "reputation", number)


# What is no job and no offer.


def test_build_reads_amounts_that_are_text() -> None:
    request = job(max_price_per_unit=str(AMOUNT_MAX), capability={"cpu_cores": "0", "gpu": "5"})
    assert request.max_price_per_unit == AMOUNT_MAX
    assert (request.capability.cpu_cores, request.capability.gpu) == (0, "5")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"priorty": "low"}, "unknown field priorty"),
        ({"Job_id": "x"}, "unknown field Job_id"),
        ({"capability": {"cores": 1}}, "capability: unknown field cores"),
        ({"slices": ["a", {"path": "b", "hash": ""}]}, "slices[1]: unknown field hash"),
        ({"buyer": None}, "buyer: expected text, got null"),
        ({"buyer": 5}, "buyer: expected text, got a whole number"),
        ({"max_price_per_unit": "05"}, "max_price_per_unit: expected a whole number, got text"),
        ({"max_price_per_unit": True}, "expected a whole number, got true or false"),
        ({"max_price_per_unit": 5.0}, "expected a whole number, got a number with a decimal point"),
        ({"max_price_per_unit": 5.5}, "expected a whole number, got a number with a decimal point"),
        (
            {"max_price_per_unit": 1e300},
            "expected a whole number, got a number with a decimal point",
        ),
        ({"max_price_per_unit": -1}, "max_price_per_unit is below 0"),
        ({"max_price_per_unit": 2**63}, f"is above {AMOUNT_MAX}"),
        ({"max_price_per_unit": 10**400}, f"is above {AMOUNT_MAX}"),
        ({"consumer_bond": -(2**63)}, "consumer_bond is below 0"),
        (
            {"consumer_bond": 0.5},
            "consumer_bond: expected a whole number, got a number with a decimal point",
        ),
        ({"capability": {"cpu_cores": -1}}, ": capability.cpu_cores"),
        ({"capability": {"gpu": ""}}, ": capability.gpu is empty"),
        ({"capability": {"accelerator": ""}}, ": capability.accelerator is empty"),
        ({"capability": {"gpu": " A100"}}, ": capability.gpu"),
        ({"capability": {"gpu": "A100 "}}, ": capability.gpu"),
        ({"capability": {"gpu": "A\n100"}}, ": capability.gpu"),
        ({"capability": {"gpu": "A100\n"}}, ": capability.gpu"),
        ({"capability": {"gpu": "é"}}, ": capability.gpu"),
        ({"capability": {"gpu": "A" * 65}}, ": capability.gpu"),
        ({"capability": {"accelerator": "T\0"}}, ": capability.accelerator"),
        ({"capability": []}, "capability: expected an object, got a list"),
        ({"priority": "urgent"}, "priority: 'urgent' is none of"),
        ({"priority": "High"}, "priority: 'High' is none of"),
        ({"lane": "fast"}, "lane: 'fast' is none of"),
        ({"slices": []}, ": slices is empty"),
        ({"slices": [""]}, ": slices[0] is empty"),
        ({"slices": "a.slice"}, "slices: expected a list, got text"),
        ({"slices": [5]}, ": slices[0]"),
        ({"slices": [{"path": ""}]}, ": slices[0].path is empty"),
        ({"slices": [{"reference": "ab" * 32}]}, "path is missing"),
        ({"slices": [{"path": "a", "reference": "ab" * 31}]}, ": slices[0].reference"),
        ({"slices": [{"path": "a", "reference": "ab" * 33}]}, ": slices[0].reference"),
        ({"slices": [{"path": "a", "reference": "0x" + "ab" * 31}]}, ": slices[0].reference"),
        ({"slices": [{"path": "a", "reference": "gg" * 32}]}, ": slices[0].reference"),
        ({"slices": [{"path": "a", "reference": "ab" * 32 + "\n"}]}, ": slices[0].reference"),
        ({"deadline": 1, "deadline_secs": 1}, "deadline and deadline_secs are both given"),
        ({"deadline": -1}, ": deadline"),
        ({"deadline": DEADLINE_MAX + 1}, ": deadline"),
        ({"deadline_secs": DEADLINE_MAX + 1}, ": deadline_secs"),
        ({"deadline_secs": None}, ": deadline_secs"),
        ({"deadline_secs": 1.5}, ": deadline_secs"),
    ],
)
def test_build_names_the_field_of_a_job_that_is_wrong(fields: dict[str, Any], words: str) -> None:
    assert words in refusal(job, **fields)


@pytest.mark.parametrize("field", ["job_id", "buyer", "workload", "slices", "max_price_per_unit"])
def test_build_names_a_field_of_a_job_that_is_missing(field: str) -> None:
    document = {name: value for name, value in JOB.items() if name != field}
    assert f"{field} is missing" in refusal(build, document, JobRequest, "job.json")


@pytest.mark.parametrize("field", ["provider", "units", "price_per_unit"])
def test_build_names_a_field_of_an_offer_that_is_missing(field: str) -> None:
    document = {name: value for name, value in OFFER.items() if name != field}
    assert f"{field} is missing" in refusal(build, document, OfferRequest, "offer.json")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"unit": 5}, "unknown field unit"),
        ({"units": 1.0}, "units: expected a whole number, got a number with a decimal point"),
        ({"units": -1}, ": units"),
        ({"units": 2**63}, ": units"),
        ({"price_per_unit": 0.5}, ": price_per_unit"),
        ({"fee_pct_ct": -1}, ": fee_pct_ct"),
        ({"reputation": 1.5}, ": reputation"),
        ({"reputation": -(2**63)}, ": reputation"),
        ({"offer_id": 7}, ": offer_id"),
    ],
)
def test_build_names_the_field_of_an_offer_that_is_wrong(
    fields: dict[str, Any], words: str
) -> None:
    assert words in refusal(offer, **fields)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a b",
        "a\n",
        "a\tb",
        "a/b",
        "../a",
        "a\\b",
        "-a",
        ".a",
        ":a",
        "é",
        "a\u0000",
        "\ud800",
        "x" * 129,
        "a,b",
        "a=b",
        "$(a)",
        "a'b",
        'a"b',
        "a*",
    ],
)
def test_build_refuses_ids_that_shells_and_logs_would_trip_over(text: str) -> None:
    for field in ("job_id", "buyer"):
        assert field in refusal(job, **{field: text})
    for field in ("offer_id", "provider", "job_id"):
        assert field in refusal(offer, **{field: text})


@pytest.mark.parametrize("key", ["a\nb", "\u001b[31mred", "\ud800", "k" * 10_000])
def test_build_can_print_any_unknown_key(key: str) -> None:
    assert "unknown" in refusal(job, **{key: 1})


@pytest.mark.parametrize("value", ["a\nb", "\u001b[31mred", "\ud800", "v" * 10_000])
def test_build_can_print_any_wrong_choice(value: str) -> None:
    assert ": priority" in refusal(job, priority=value)


# The multiplier keeps the digits of the file: no float is in between.


@pytest.mark.parametrize(
    ("literal", "ppm"),
    [
        ("0.5", 500_000),
        ('"0.5"', 500_000),
        ("0.58", 580_000),
        ("0.999999", 999_999),
        ("1", 1_000_000),
        ("1.0", 1_000_000),
        ("0.70000", 700_000),
        ("5e-1", 500_000),
    ],
)
def test_multiplier_stays_exact_up_to_the_offer(market: Market, literal: str, ppm: int) -> None:
    request = raw_offer("reputation_multiplier", literal)
    found = market.update(lambda txn: posting.post(txn, request)[0])
    assert found.multiplier_ppm == ppm


@pytest.mark.parametrize(
    "literal",
    [
        "1.01",
        "0.49",
        "0.5000001",
        '"nan"',
        '"1.01"',
        '"+1"',
        '"1e0"',
        "true",
        "null",
        "[0.5]",
        "{}",
        "-0.5",
        "1.0000000",
    ],
)
def test_multiplier_out_of_bounds_is_refused_by_the_market(market: Market, literal: str) -> None:
    request = raw_offer("reputation_multiplier", literal)
    with pytest.raises(RefusedError, match="invalid reputation multiplier"):
        market.update(lambda txn: posting.post(txn, request))


def test_parse_keeps_decimals_as_they_are_written() -> None:
    assert parse(b'{"a": 0.1, "b": 1.10}', "f") == {"a": Decimal("0.1"), "b": Decimal("1.10")}
    assert str(parse(b'{"b": 1.10}', "f")["b"]) == "1.10"


# The market's own bounds on a job.


def test_draft_refuses_what_no_market_could_take(market: Market) -> None:
    def draft(inputs: list[Any], **fields: Any) -> str:
        with pytest.raises(RefusedError) as caught:
            drafts.draft(job(**fields), inputs, market.now_ms // 1000, DEFAULTS)
        return caught.value.reason or ""

    assert draft([slice_of(0)]) == "empty_slice"
    assert draft([slice_of(1)], consumer_bond=0) == "consumer_bond_too_low"
    assert draft([slice_of(1)], deadline=1) == "deadline"
    assert draft([slice_of(2**82), slice_of(2**83)]) == "overflow"


# Several GPU models.


@pytest.mark.parametrize(
    ("asked", "stored"),
    [
        (["A100"], Capability(gpu="A100", gpu_count=1)),
        (["A100", "H100"], Capability(gpu=("A100", "H100"), gpu_count=1)),
        (["H100", "A100"], Capability(gpu=("A100", "H100"), gpu_count=1)),
        (["A100", "A100"], Capability(gpu="A100", gpu_count=1)),
        (["B", "A", "B", "C", "A"], Capability(gpu=("A", "B", "C"), gpu_count=1)),
        (
            [f"m{n}" for n in range(32)],
            Capability(gpu=tuple(sorted(f"m{n}" for n in range(32))), gpu_count=1),
        ),
    ],
)
def test_job_names_a_set_of_models(asked: list[str], stored: Capability) -> None:
    """Any of them will do, so their order means nothing and makes no other job."""
    found = job(capability={"gpu": asked}).capability.capability()
    assert found == stored
    assert found.gpu_models == tuple(sorted(set(asked)))


@pytest.mark.parametrize("models", ["A100", ["A100", "H100"], ["A100", "H100", "L4"]])
def test_models_pass_through_store_and_document_unchanged(market: Market, models: Any) -> None:
    request = job(capability={"gpu": models, "gpu_count": 2})
    market.post(units=5, capability={"gpu": "A100", "gpu_count": 2})
    taken = market.submit("job", capability={"gpu": models, "gpu_count": 2})
    assert taken.changed
    document = json.loads(json.dumps(capability_document(market.job().capability)))
    assert document == {"gpu": models, "gpu_count": 2}
    assert job(capability=document) == request
    again = market.submit("job", capability=document)
    assert not again.changed


def test_job_that_names_other_models_is_another_job(market: Market) -> None:
    market.post(capability={"gpu": "A100"})
    market.submit("job", capability={"gpu": ["A100", "H100"]})
    for models in (["A100", "L4"], "A100"):
        with pytest.raises(ConflictError, match="capability"):
            market.submit("job", capability={"gpu": models})


@pytest.mark.parametrize(
    ("models", "words"),
    [
        ([], "capability.gpu is empty"),
        ([f"m{n}" for n in range(33)], ": capability.gpu"),
        (["A100", ""], "capability.gpu[1] is empty"),
        (["A100", None], ": capability.gpu[1]"),
        ([["A100"]], ": capability.gpu[0]"),
        ({"model": "A100"}, ": capability.gpu"),
    ],
)
def test_build_names_what_is_wrong_with_a_list_of_models(models: Any, words: str) -> None:
    assert words in refusal(job, capability={"gpu": models})


@pytest.mark.parametrize("models", [["A100"], ["A100", "H100"]])
def test_offer_with_a_list_of_models_is_refused(models: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        offer(capability={"gpu": models})
    assert caught.value.message == "offer.json: capability.gpu: an offer has one GPU model"
    assert caught.value.hint == "post an offer for each model; a job may name several"


# Many in one file.


def read(content: bytes) -> list[tuple[str, dict[str, Any] | str]]:
    """Source and fields of each document, or what is wrong with it."""
    found = documents(content.splitlines(keepends=True), "file.json")
    return [(d.source, d.fields if d.error is None else d.error.message) for d in found]


def test_documents_are_one_object_per_line() -> None:
    content = b'{"a": 1}\n\n  {"a": 2} \r\n{"a": {"b": 3}}\n'
    assert read(content) == [
        ("file.json line 1", {"a": 1}),
        ("file.json line 3", {"a": 2}),
        ("file.json line 4", {"a": {"b": 3}}),
    ]


@pytest.mark.parametrize(
    "content", [b'{"a": 1}', b'{\n"a": 1\n}', b'\n{"a": 1}\n', b'{"a":\n1}', b'{\n"a": 1}\n']
)
def test_documents_take_one_object_over_several_lines(content: bytes) -> None:
    assert read(content) == [("file.json", {"a": 1})]


def test_document_that_is_wrong_stands_among_the_others() -> None:
    content = b'{"a": 1}\n{"a": 2, "a": 3}\nno\n{"a": 4}\n'
    assert read(content) == [
        ("file.json line 1", {"a": 1}),
        ("file.json line 2", "file.json line 2: the key 'a' is given twice"),
        ("file.json line 3", "file.json line 3, column 1: expected a JSON object"),
        ("file.json line 4", {"a": 4}),
    ]


@pytest.mark.parametrize("content", [b"", b" \n\n"])
def test_file_without_any_holds_no_document(content: bytes) -> None:
    assert read(content) == []


def test_line_and_object_that_are_too_long_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    from compute_market import json_documents

    monkeypatch.setattr(json_documents, "DOCUMENT_BYTES_MAX", 20)
    assert read(b'{"a": 1}\n{"a": "' + b"x" * 20 + b'"}\n{"a": 3}\n') == [
        ("file.json line 1", {"a": 1}),
        ("file.json line 2", "file.json line 2: has more than 20 bytes"),
        ("file.json line 3", {"a": 3}),
    ]
    with pytest.raises(UsageError, match="has more than 20 bytes"):
        read(b'{\n"b": 1234567890,\n"a": 1}')


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"no", "file.json: line 1, column 1: expected a JSON object"),
        (b'{\n\n"a": }', "file.json: line 3, column 6: expected a value"),
        (b'\n{\n\n"a": }', "file.json: line 4, column 6: expected a value"),
    ],
)
def test_single_object_that_is_wrong_is_an_error(content: bytes, words: str) -> None:
    assert refusal(read, content) == words


def test_documents_are_read_as_they_are_taken() -> None:
    taken = []

    def lines() -> Iterator[bytes]:
        for number in range(1_000_000):
            taken.append(number)
            yield b'{"a": 1}\n'

    found = documents(lines(), "file.json")
    for _ in range(10):
        next(found)
    assert len(taken) <= 11


@pytest.mark.parametrize("first", [b"{bad\n", b'{"a": 1, "a": 2}\n', b"\xff\n", b"[1]\n"])
def test_first_of_many_lines_that_is_wrong_fails_alone(first: bytes) -> None:
    found = list(documents([first, b'{"a": 1}\n', b'{"b": 2}\n'], "f"))
    assert [document.fields for document in found] == [{}, {"a": 1}, {"b": 2}]
    assert found[0].error is not None
    assert found[0].error.message.startswith("f line 1")


def test_object_of_many_lines_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """There may be any number of objects, but one is read whole."""
    monkeypatch.setattr(json_documents, "DOCUMENT_BYTES_MAX", 1_000)
    lines = chain((b"{\n",), repeat(b' "a": 1,\n', 1_000_000))
    with pytest.raises(UsageError, match="f: has more than 1000 bytes"):
        list(documents(lines, "f"))
    assert len(list(lines)) > 999_000, "it was read on"
    assert len(list(documents((b'{"a": 1}\n' for _ in range(1_000)), "f"))) == 1_000


# Lists of them.


def test_documents_of_a_list_are_its_elements_in_the_form_of_this_program() -> None:
    content = b'[\n{"a":1}\n,\n{"a":2}\n,\n{"a":}\n,\n{"a":4}\n]\n'
    assert read(content) == [
        ("file.json line 2", {"a": 1}),
        ("file.json line 4", {"a": 2}),
        ("file.json line 6", "file.json line 6, column 6: expected a value"),
        ("file.json line 8", {"a": 4}),
    ]


def laid_out(elements: list[str], blanks: list[str]) -> str:
    """A list of texts with blanks between all that may have some there."""
    spaces = chain(blanks, repeat(""))
    parts = (f"{next(spaces)}{each}{next(spaces)}" for each in elements)
    return f"{next(spaces)}[{','.join(parts)}]{next(spaces)}"


BLANKS = st.lists(st.sampled_from(["", " ", "\n", "\n\n  ", "\r\n"]), max_size=12)


@given(
    st.lists(st.dictionaries(st.text(max_size=5), JSON, max_size=3), max_size=5),
    BLANKS,
    st.sampled_from([None, 1]),
    st.booleans(),
)
def test_documents_of_a_list_do_not_depend_on_its_layout(
    values: list[dict[str, Any]], blanks: list[str], indent: int | None, escaped: bool
) -> None:
    texts = [json.dumps(each, indent=indent, ensure_ascii=escaped) for each in values]
    content = laid_out(texts, blanks).encode()
    found = list(documents(content.splitlines(keepends=True), "f"))
    assert [each.fields for each in found] == [without_comments(each) for each in values]
    assert [each.text.decode() for each in found] == texts
    # What follows each of them is found again by its place.
    lines = content.splitlines(keepends=True)
    for index, each in enumerate(found):
        assert each.columns is not None
        rest = lines[each.lines[1] - 1 :]
        again = documents(rest, "f", behind=each.columns[1])
        assert [other.text for other in again] == [other.text for other in found[index + 1 :]]


NOTHING = "expected a JSON object"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("[]", []),
        ("[ \n ]\n", []),
        ('[{"a": "],[{\\"}"}]', [("line 1", {"a": '],[{"}'})]),
        (
            '[1, {"a": 1}, [2], {}]',
            [
                ("line 1", "line 1: expected a JSON object, got a number"),
                ("line 1, element 2", {"a": 1}),
                ("line 1, element 3", "line 1, element 3: expected a JSON object, got a list"),
                ("line 1, element 4", {}),
            ],
        ),
        (
            '[\n  {\n    "a": 1\n  },\n  {\n    "b": }, {"b": 1, "b": 2}\n]',
            [
                ("line 2", {"a": 1}),
                ("line 5", "line 5: line 6, column 10: expected a value"),
                ("line 6", "line 6: the key 'b' is given twice"),
            ],
        ),
        (
            "[{},]",
            [("line 1", {}), ("line 1, element 2", f"line 1, element 2, column 5: {NOTHING}")],
        ),
        ("[{} {}]", [("line 1", "line 1, column 5: nothing may follow here")]),
        ("[}]", [("line 1", f"line 1, column 2: {NOTHING}")]),
        ('{"a": 1}\n[{"a": 2}]\n{"a": 3}', [(f"line {n}", {"a": n}) for n in (1, 2, 3)]),
        ('[{"a": 1}]\n[{"a": 2}]', [(f"line {n}", {"a": n}) for n in (1, 2)]),
    ],
)
def test_element_of_a_list_that_is_wrong_stands_among_the_others(
    content: str, expected: list[tuple[str, Any]]
) -> None:
    found = [
        (
            source.removeprefix("file.json "),
            told.removeprefix("file.json ") if isinstance(told, str) else told,
        )
        for source, told in read(content.encode())
    ]
    assert found == expected


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[", "file.json: the list that begins in line 1 does not end"),
        ('\n[{"a": 1}\n,', "file.json: the list that begins in line 2 does not end"),
        ('[\n{"a": 1', "file.json: an element that begins in line 2 does not end"),
        ('[{"a": "]}', "file.json: an element that begins in line 1 does not end"),
        ('[{"a": 1}] {"a": 2}', "file.json line 1: more stands behind the list"),
        ('[{"a": 1}]]', "file.json line 1: more stands behind the list"),
    ],
)
def test_list_that_is_wrong_as_a_whole_is_an_error(content: str, words: str) -> None:
    assert refusal(read, content.encode()) == words


def test_list_is_read_as_its_elements_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []

    def lines() -> Iterator[bytes]:
        yield b"[\n"
        for number in range(1_000_000):
            taken.append(number)
            yield b'{"a": 1}\n,\n'[9 * (number % 2) :][: 9 if number % 2 == 0 else 2]

    found = documents(lines(), "file.json")
    for _ in range(10):
        next(found)
    assert len(taken) <= 20
    monkeypatch.setattr(json_documents, "DOCUMENT_BYTES_MAX", 20)
    assert len(list(documents((b"[\n", *[b'{"a": 1}\n', b",\n"] * 99, b"{}]"), "f"))) == 100
    with pytest.raises(UsageError, match="f line 1: a list has more than 20 bytes in it"):
        list(documents([b'[{"a": 1}, {"a": 2}, {"a": 3}]'], "f"))
    with pytest.raises(UsageError, match="f line 2: has more than 20 bytes"):
        list(documents([b"[\n", b"{\n", *[b'"a": 1,\n'] * 9], "f"))


def test_element_of_many_lines_is_bounded_as_one_line_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_documents, "DOCUMENT_BYTES_MAX", 50)
    lines = [b'[{"a": "' + b"x" * 20 + b'",\n', b'"b": "' + b"y" * 20 + b'"}]\n']
    with pytest.raises(UsageError, match="has more than 50 bytes"):
        list(documents(lines, "f"))
