"""`--schema` and `--example`: what files of jobs and offers are like, and that it is so."""

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import jsonschema_rs
import pytest

from compute_market.errors import UsageError
from compute_market.json_documents import parse
from compute_market.requests import (
    CapabilityRequest,
    JobRequest,
    OfferRequest,
    SliceRequest,
    build,
)
from tests.support.cli import HELLO, Cli
from tests.support.effort import effort

pytest_plugins = ("tests.support.cli",)

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "workloads"
POST = ("compute", "offer", "post")
SUBMIT = ("compute", "submit")
MOST = 2**63 - 1

IDS = ["a", "_a", "A.b:c@d+e-f", "x" * 128, "x" * 129, "", ".a", "a b", "é", 5, None, "a\tb"]
AMOUNTS = [
    *(0, 1, 100, 101, MOST, MOST + 1, -1, "0", "1", "007", str(MOST), str(MOST + 1), "9" * 19),
    *("+1", "-1", "1.0", "", " 1", "١", 1.5, True, None, []),
]
MODELS = ["A100", "a b", "x" * 64, "x" * 65, "", " A", "A ", "a\tb", 5]
GPUS = [*MODELS, None, ["A"], ["A", "B"], [], ["A"] * 33, ["A", None], [""]]
COMMENTS = [1, None, {"_": []}]


def schema_of(cli: Cli, verb: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(cli.ok(*verb, "--schema"))
    return found


@pytest.mark.parametrize("verb", [POST, SUBMIT], ids=" ".join)
def test_schema_is_one_of_its_dialect_and_needs_no_market(cli: Cli, verb: tuple[str, ...]) -> None:
    schema = schema_of(cli, verb)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema_rs.meta.validate(schema)
    told = [schema, *schema["$defs"].values()]
    assert all(each["description"] for part in told for each in part.get("properties", {}).values())
    assert cli.ok(*verb, "--schema", "--json") == cli.ok(*verb, "--schema", "-n")
    assert not cli.home.exists()


@pytest.mark.parametrize(("option", "verb"), [("--schema", POST), ("--example", SUBMIT)])
def test_schema_and_example_read_no_file(cli: Cli, option: str, verb: tuple[str, ...]) -> None:
    done = cli(*verb, option, "no.json")
    assert done == (2, "", f"error[usage]: {option} prints, and reads no file\n")
    assert not cli.home.exists()


def test_examples_can_be_handed_in_as_they_are(cli: Cli) -> None:
    offer, job = cli.ok(*POST, "--example"), cli.ok(*SUBMIT, "--example")
    assert not cli.home.exists()
    assert cli.ok(*POST, "-", stdin=offer) == "posted offer gpu-box\n"
    submitted = cli.document(*SUBMIT, "-", stdin=job)
    assert (submitted["state"], submitted["provider"]) == ("active", "gpu-lab")
    assert cli.ok("compute", "execute", "frames-1").startswith("executed job frames-1: 2 of 2")


def test_examples_name_every_field(cli: Cli) -> None:
    def has(document: dict[str, Any], kind: type, but: set[str]) -> bool:
        fields = {name for name in document if name[0] != "_"}
        return fields | but == set(kind.__struct_fields__)  # type: ignore[attr-defined]

    offer, job = json.loads(cli.ok(*POST, "--example")), json.loads(cli.ok(*SUBMIT, "--example"))
    assert has(offer, OfferRequest, set())
    # A job has one of two deadlines.
    assert has(job, JobRequest, {"deadline"})
    assert has(job["slices"][1], SliceRequest, set())
    assert has(offer["capability"], CapabilityRequest, set())
    assert has(job["capability"], CapabilityRequest, set())


def test_examples_of_the_tree_are_valid(cli: Cli) -> None:
    job, offer = (jsonschema_rs.validator_for(schema_of(cli, verb)) for verb in (SUBMIT, POST))
    job.validate(json.loads((EXAMPLES / "job.json").read_text()))
    job.validate(json.loads((EXAMPLES / "sealed_bid.json").read_text()))
    offer.validate(json.loads((EXAMPLES / "offer.json").read_text()))


def test_offer_that_is_shown_is_valid(cli: Cli) -> None:
    cli.post()
    jsonschema_rs.validate(schema_of(cli, POST), cli.offer())


def drawn(random: Random, fields: dict[str, list[Any]], needed: tuple[str, ...]) -> dict[str, Any]:
    """A document that is wrong in one or two fields at most, or in none."""
    document = {
        name: values[0]
        for name, values in fields.items()
        if name in needed or random.random() < 0.4
    }
    for name in random.sample(list(fields), random.randrange(3)):
        document[name] = random.choice(fields[name])
    if random.random() < 0.05:
        document.pop(random.choice(needed), None)
    if random.random() < 0.1:
        document[random.choice(["price", "_note", "state"])] = random.choice(COMMENTS)
    return document


def capability(random: Random) -> Any:
    if random.random() < 0.1:
        return random.choice([None, [], "A100", {}])
    amounts = dict.fromkeys(("cpu_cores", "gpu_count", "gpu_memory_mb"), AMOUNTS)
    found = drawn(random, {"gpu": GPUS, "accelerator": [*MODELS, None], **amounts}, ("cpu_cores",))
    return found | ({"x": 1} if random.random() < 0.05 else {})


def differences(
    cli: Cli,
    verb: tuple[str, ...],
    documents: list[Any],
    is_read: Callable[[list[Any]], list[bool]],
) -> list[Any]:
    """The documents that the schema and the reader do not agree on."""
    validator = jsonschema_rs.validator_for(schema_of(cli, verb))
    verdicts = is_read(documents)
    assert 0.2 < sum(verdicts) / len(documents) < 0.8
    pairs = zip(documents, verdicts, strict=True)
    return [each for each, accepted in pairs if validator.is_valid(each) != accepted]


def test_schema_of_an_offer_says_what_is_posted(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    cli.ok("state", "init")
    monkeypatch.setenv("TB_REPUTATION_MULTIPLIER_MIN", "0.000001")
    random = Random(13)
    fields: dict[str, list[Any]] = {
        "provider": IDS,
        "units": [7, *AMOUNTS],
        "price_per_unit": [3, *AMOUNTS[1:7], *AMOUNTS[8:]],  # There is no market price.
        "offer_id": IDS,
        "fee_pct_ct": [v for v in AMOUNTS if not isinstance(v, str)],
        "provider_bond": [1, *AMOUNTS],
        "consumer_bond": [1, *AMOUNTS],
        "reputation": [0, -5, -MOST, -MOST - 1, *AMOUNTS],
        "reputation_multiplier": [
            *("1", "0.5", "1.0", "0.000001", 1, 0.5, 0.000001, "0.0000001", ".5", "1.", "0"),
            *("1.000001", "2", 0, 2, -1, True, None, "one", []),
        ],
        "job_id": [None, *IDS],
    }
    needed = ("provider", "units", "price_per_unit")
    documents = [drawn(random, fields, needed) for _ in range(effort(400, 20_000))]
    for document in documents:
        if random.random() < 0.3:
            document["capability"] = capability(random)

    def is_read(documents: list[Any]) -> list[bool]:
        found = []
        for document in documents:
            # Each by itself, as the same id may come again.
            done = cli(*POST, "-", "-n", stdin=json.dumps(document))
            assert done.code in (0, 2, 5)
            found.append(done.code == 0)
        return found

    assert differences(cli, POST, documents, is_read) == []


def test_schema_of_a_job_says_what_is_read(cli: Cli) -> None:
    random = Random(13)
    spans = [0, 60, 253_402_300_799, 253_402_300_800, -1, "60", None, 1.5]
    fields: dict[str, list[Any]] = {
        "job_id": IDS,
        "buyer": IDS,
        "workload": ["transcode", "", 5, None],
        "slices": [
            *(["a"], [{"path": "a"}], ["a", {"path": "a", "reference": HELLO}], [""], [], None),
            *([{"path": "a", "reference": HELLO.upper()}], [{"path": "a", "reference": None}]),
            *([{"path": "a", "reference": HELLO[1:]}], [{"path": ""}], [{}], [5], "a"),
            *([{"path": "a", "size": 5}], [{"path": "a", "_size": 5}]),
        ],
        "max_price_per_unit": AMOUNTS,
        "consumer_bond": [1, *AMOUNTS],
        "provider_bond_min": [1, *AMOUNTS],
        "deadline": spans,
        "deadline_secs": spans,
        "priority": ["high", "normal", "low", "urgent", None],
        "lane": ["consumer", "industrial", "fast", None],
    }
    needed = ("job_id", "buyer", "workload", "slices", "max_price_per_unit")
    documents = [drawn(random, fields, needed) for _ in range(effort(2_000, 100_000))]
    for document in documents:
        if "deadline_secs" in document and random.random() < 0.7:
            document.pop("deadline", None)
        if random.random() < 0.3:
            document["capability"] = capability(random)

    def is_read(documents: list[Any]) -> list[bool]:
        return [_is_job(json.dumps(document)) for document in documents]

    assert differences(cli, SUBMIT, documents, is_read) == []


def _is_job(text: str) -> bool:
    """Whether a job is read, and has bonds that a market takes."""
    try:
        request = build(parse(text.encode(), "it"), JobRequest, "it")
    except UsageError:
        return False
    return request.consumer_bond > 0 and request.provider_bond_min > 0
