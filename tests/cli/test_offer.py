"""`compute offer post|list|show|withdraw`."""

import json
import os
import re
import subprocess
from typing import Any

import pytest

from tests.support.cli import OFFER_FIELDS, Cli

pytest_plugins = ("tests.support.cli",)

MINIMAL = {"provider": "prov", "units": 10, "price_per_unit": 5}


def lines(*documents: dict[str, Any]) -> str:
    return "".join(json.dumps(document) + "\n" for document in documents)


def test_post_assigns_ids_in_order(cli: Cli) -> None:
    terms = ("compute", "offer", "post", "--provider", "prov", "--units", "10", "--price", "5")
    assert cli.ok(*terms) == "posted offer o-1\n"
    assert cli.ok(*terms) == "posted offer o-2\n"
    assert cli.offer("o-1")["provider"] == cli.offer("o-2")["provider"] == "prov"


def test_assigned_id_skips_one_that_is_taken(cli: Cli) -> None:
    cli.post("--offer-id", "o-1")
    assert cli.post() == "o-2"


def test_post_takes_every_term_as_an_option(cli: Cli) -> None:
    document = cli.document(
        *("compute", "offer", "post", "--offer-id", "big", "--provider", "p1", "--units", "7"),
        *("--price", "20", "--fee-pct-ct", "25", "--bond", "3", "--consumer-bond", "4"),
        *("--cpu-cores", "8", "--gpu", "A100", "--gpu-count", "2", "--gpu-memory-mb", "65536"),
        *("--accelerator", "TPU", "--accelerator-memory-mb", "4096", "--reputation", "9"),
        *("--multiplier", "0.58", "--job", "only"),
    )
    expected = {
        "offer_id": "big",
        "provider": "p1",
        "units": 7,
        "price_per_unit": 20,
        "fee_pct_ct": 25,
        "provider_bond": 3,
        "consumer_bond": 4,
        "capability": {
            "cpu_cores": 8,
            "gpu": "A100",
            "gpu_count": 2,
            "gpu_memory_mb": 65536,
            "accelerator": "TPU",
            "accelerator_memory_mb": 4096,
        },
        "reputation": 9,
        "reputation_multiplier": "0.58",
        "job_id": "only",
        "state": "open",
        "units_left": 7,
        "units_reserved": 0,
        "units_proven": 0,
        "effective_price": 12,
        "posted_at": cli.now,
        "shelf": "unfunded",
        "market_priced": False,
        "barred_by": {"reason": "unfunded", "provider_bond": 3, "balance": 0},
    }
    assert document == expected | {"changed": True, "matched": [], "took_over": None}
    assert list(document) == [*OFFER_FIELDS, "changed", "matched", "took_over"]
    bond = "unfunded once money moves: bond 3, the wallet has 0"
    assert cli.offer("big") == expected | {"problem": bond}
    assert cli.score("p1") == 9


def test_post_takes_every_term_from_a_file(cli: Cli) -> None:
    terms: dict[str, Any] = {
        "_comment": "keys that begin with _ are comments",
        **MINIMAL,
        "offer_id": "filed",
        "fee_pct_ct": 0,
        "provider_bond": 2,
        "consumer_bond": 3,
        "capability": {"_c": 1, "gpu": "A100"},
        "reputation": -5,
        "reputation_multiplier": 0.75,
        "job_id": "j1",
    }
    path = cli.directory / "offer.json"
    path.write_text(json.dumps(terms))
    assert cli.ok("compute", "offer", "post", path) == "posted offer filed\n"
    stored = cli.offer("filed")
    given = {name: value for name, value in terms.items() if name[0] != "_"}
    given |= {"capability": {"gpu": "A100", "gpu_count": 1}, "reputation_multiplier": "0.75"}
    assert {name: stored[name] for name in given} == given
    assert cli.score() == -5


def test_post_reads_one_offer_per_line_of_stdin(cli: Cli) -> None:
    given = lines(MINIMAL, MINIMAL | {"offer_id": "x", "capability": {"cpu_cores": 2}})
    assert cli.ok("compute", "offer", "post", "-", stdin=given) == (
        "posted offer o-1\nposted offer x\n"
    )
    assert cli.offer("x")["capability"] == {"cpu_cores": 2}


def test_options_win_over_the_file(cli: Cli) -> None:
    given = lines(MINIMAL | {"capability": {"gpu": "A100", "cpu_cores": 1}})
    options = ("--units", "99", "--cpu-cores", "64")
    cli.ok("compute", "offer", "post", "-", *options, stdin=given)
    offer = cli.offer()
    assert (offer["units"], offer["price_per_unit"]) == (99, 5)
    assert offer["capability"] == {"cpu_cores": 64, "gpu": "A100", "gpu_count": 1}


def test_post_of_the_same_offer_again_changes_nothing(cli: Cli) -> None:
    cli.post("--offer-id", "x")
    again = ("compute", "offer", "post", "--offer-id", "x", "--provider", "prov")
    terms = ("--units", "1000", "--price", "5")
    assert cli.ok(*again, *terms) == "offer x exists, unchanged: open\n"
    assert cli.document(*again, *terms)["changed"] is False
    done = cli(*again, "--units", "1001", "--price", "5")
    text = "offer x exists with units 1000, not 1001"
    hint = "hint: use another --offer-id, or change it with `tb-cli compute offer set`"
    assert done == (6, f"{text}\n", f"error[conflict]: {text}\n{hint}\n")
    done = cli(*again, "--units", "1000", "--price", "6", "--json")
    assert (done.code, done.out, done.error["field"]) == (6, "", "price_per_unit")
    assert cli.offer("x")["units"] == 1000


# In the order in which they are looked at: each offer is wrong in this and every later way.
REFUSALS = [
    ("provider bond too low", ("--bond", "0"), "--bond, in a file provider_bond, is at least 1 CT"),
    (
        "consumer bond too low",
        ("--consumer-bond", "0"),
        "--consumer-bond, in a file consumer_bond, is at least 1 CT",
    ),
    ("no units offered", ("--units", "0"), "--units, in a file units, is at least 1"),
    (
        "invalid fee_pct_ct",
        ("--fee-pct-ct", "101"),
        "--fee-pct-ct, in a file fee_pct_ct, is the percentage paid in CT: 0…100",
    ),
    (
        "invalid reputation multiplier",
        ("--multiplier", "1.01"),
        "--multiplier, in a file reputation_multiplier, is a decimal with at most 6 places, 0.5…1",
    ),
    (
        "no price data",
        ("--price", "0"),
        "a price of 0 means the market price, and nothing has been priced yet",
    ),
]


@pytest.mark.parametrize("place", range(len(REFUSALS)))
def test_post_refuses_in_order(cli: Cli, place: int) -> None:
    cli.ok("state", "init")
    message, _, hint = REFUSALS[place]
    wrong = [option for _, options, _ in REFUSALS[place:] for option in options]
    terms = [option for option in ("--units", "--price") if option not in wrong]
    given = [text for option in terms for text in (option, "5")]
    done = cli("compute", "offer", "post", "--provider", "prov", *given, *wrong)
    assert (done.code, done.out) == (5, f"{message}\n")
    assert done.err == f"error[refused]: {message}\nhint: {hint}\n"
    assert cli.document("compute", "offer", "list") == []
    assert cli.document("net", "reputation", "show") == []
    done = cli("compute", "offer", "post", "--provider", "prov", *given, *wrong, "--json")
    assert (done.code, done.out, done.error["error"]) == (5, "", "refused")
    assert done.error["reason"] == message.replace(" ", "_")


@pytest.mark.parametrize("multiplier", ["0.5", "1", "1.0", "0.999999", "0.500000"])
def test_post_takes_multipliers_within_bounds(cli: Cli, multiplier: str) -> None:
    cli.post("--multiplier", multiplier)
    assert float(cli.offer()["reputation_multiplier"]) == float(multiplier)


def test_reputation_is_clamped_and_seeds_only_once(cli: Cli) -> None:
    cli.post("--reputation", "5000")
    assert (cli.offer()["reputation"], cli.score()) == (1000, 1000)
    cli.post("--reputation", "-7")
    assert (cli.offer("o-2")["reputation"], cli.score()) == (-7, 1000)


def test_post_takes_up_pending_jobs(cli: Cli) -> None:
    cli.submit("j1", "--wait")
    cli.submit("j2", "--wait")
    assert cli.ok(
        "compute", "offer", "post", "--provider", "p", "--units", "9", "--price", "5"
    ) == ("posted offer o-1, taken by j1 j2\n")
    assert cli.states() == {"j1": "active", "j2": "active"}


def test_directed_offer_serves_only_its_job(cli: Cli) -> None:
    cli.post("--job", "chosen")
    assert cli(*cli.job_arguments("other")).code == 5
    assert cli.submit("chosen")["offer_id"] == "o-1"


def test_list_prints_one_line_per_offer(cli: Cli) -> None:
    cli.post("--gpu", "A100", units=1)
    cli.post("--multiplier", "0.5", provider="other", price=10)
    cli.submit("j1", "--gpu", "A100")
    assert cli.ok("compute", "offer", "list") == (
        "o-1\texhausted\tprov\t5\t5\t0\t1\tgpu=A100 gpu_count=1\texhausted\tno units left\n"
        "o-2\topen\tother\t10\t5\t1000\t1000\t-\tunfunded"
        "\tunfunded once money moves: bond 1, the wallet has 0\n"
    )


def test_list_filters(cli: Cli) -> None:
    cli.post()
    cli.post(provider="other")
    cli.post()
    cli.ok("compute", "offer", "withdraw", "o-3")

    def listed(*options: str) -> list[str]:
        return [row[0] for row in cli("compute", "offer", "list", *options).rows]

    assert listed() == ["o-1", "o-2", "o-3"]
    assert listed("--state", "open") == ["o-1", "o-2"]
    assert listed("--state", "withdrawn", "--state", "exhausted") == ["o-3"]
    assert listed("--provider", "prov", "--state", "open") == ["o-1"]
    assert listed("--limit", "1") == ["o-3"]
    assert listed("--provider", "other", "--limit", "5") == ["o-2"]
    error = "error[usage]: --state: 'shut' is none of open, exhausted, withdrawn\n"
    error += "hint: see `tb-cli compute offer list --help`\n"
    assert cli("compute", "offer", "list", "--state", "shut") == (2, "", error)


def test_list_goes_on_over_the_page(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from tb_cli.frame import paging

    ids = [cli.post("--offer-id", name) for name in "abcde"]
    for page in (1, 2, 5, 6):
        monkeypatch.setattr(paging, "PAGE", page)
        assert [row[0] for row in cli("compute", "offer", "list").rows] == ids


def test_list_json_and_jsonl_are_the_records(cli: Cli) -> None:
    cli.post()
    cli.post()
    both = [cli.offer("o-1"), cli.offer("o-2")]
    assert cli.document("compute", "offer", "list") == both
    assert cli("compute", "offer", "list", "--jsonl").jsonl == both
    assert list(both[0]) == [*OFFER_FIELDS, "problem"]


def test_show_prints_every_field(cli: Cli) -> None:
    cli.post("--cpu-cores", "4")
    assert cli.ok("compute", "offer", "show", "o-1").splitlines() == [
        "offer_id: o-1",
        "provider: prov",
        "units: 1000",
        "price_per_unit: 5",
        "fee_pct_ct: 100",
        "provider_bond: 1",
        "consumer_bond: 1",
        "capability: cpu_cores=4",
        "reputation: 0",
        "reputation_multiplier: 1",
        "job_id: -",
        "state: open",
        "units_left: 1000",
        "units_reserved: 0",
        "units_proven: 0",
        "effective_price: 5",
        f"posted_at: {cli.now}",
        "shelf: unfunded",
        "market_priced: false",
        "barred_by: reason=unfunded provider_bond=1 balance=0",
        "problem: unfunded once money moves: bond 1, the wallet has 0",
    ]


def test_show_of_an_unknown_offer_is_not_found(cli: Cli) -> None:
    cli.ok("state", "init")
    error = "error[not_found]: offer o-1 does not exist\nhint: see `tb-cli compute offer list`\n"
    assert cli("compute", "offer", "show", "o-1") == (3, "", error)


def test_shelf_says_what_keeps_an_open_offer_from_being_taken(cli: Cli) -> None:
    cli.real()
    cli.post("--offer-id", "good")
    cli.post("--offer-id", "poor", "--bond", "101")
    cli.post("--offer-id", "barred", "--reputation", "-1", provider="bad")
    cli.post("--offer-id", "gone")
    cli.ok("compute", "offer", "withdraw", "gone")
    assert {
        offer["offer_id"]: offer["shelf"] for offer in cli.document("compute", "offer", "list")
    } == {
        "good": "open",
        "poor": "unfunded",
        "barred": "barred",
        "gone": None,
    }
    # A wallet that crosses the bond moves the offer at once.
    cli.ok("wallet", "deposit", "prov", "--ct", "1")
    assert cli.offer("poor")["shelf"] == "open"
    assert cli.ok("compute", "offer", "show", "gone").endswith(
        "shelf: -\nmarket_priced: false\nbarred_by: -\nproblem: withdrawn\n"
    )


def test_offer_says_what_bars_it_and_until_when(cli: Cli) -> None:
    cli.real()
    cli.post("--offer-id", "good")
    cli.post("--offer-id", "poor", "--bond", "101")
    cli.post("--offer-id", "barred", "--reputation", "-1", provider="bad")
    listed = {
        offer["offer_id"]: offer["barred_by"] for offer in cli.document("compute", "offer", "list")
    }
    until = cli.now + 14 * 86_400  # 0.95^14 is less than a half.
    assert listed == {
        "good": None,
        "poor": {"reason": "unfunded", "provider_bond": 101, "balance": 100},
        "barred": {"reason": "bad_standing", "score": -1, "until": until},
    }
    assert cli.offer("barred")["barred_by"] == listed["barred"]
    (cli.home / "config.toml").write_text("provider_reputation_decay = 0\n")
    assert cli.offer("barred")["barred_by"]["until"] is None
    (cli.home / "config.toml").unlink()
    cli.advance(14 * 86_400)
    cli.ok("tick", due="1 provider in good standing again")
    assert cli.offer("barred")["shelf"] == "unfunded"


def test_offer_has_one_gpu_model(cli: Cli) -> None:
    given = lines(MINIMAL | {"capability": {"gpu": ["A100", "V100"]}})
    done = cli("compute", "offer", "post", "-", stdin=given)
    assert (done.code, done.out) == (2, "stdin: capability.gpu: an offer has one GPU model\n")
    terms = ("--provider", "p", "--units", "1", "--price", "1", "--gpu", "A100", "--gpu", "V100")
    done = cli("compute", "offer", "post", *terms)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error[usage]: --gpu is given twice, and takes one value")


def test_line_that_is_wrong_fails_alone_and_is_named(cli: Cli) -> None:
    cli.ok("state", "init")
    given = lines(MINIMAL) + "{nonsense\n" + lines(MINIMAL | {"units": -1}, MINIMAL)
    done = cli("compute", "offer", "post", "-", "--json", stdin=given)
    assert (done.code, done.err) == (7, "2 of 4 failed: 2 usage\n")
    assert [document["offer_id"] for document in done.json] == [
        *("o-1", "stdin line 2", "stdin line 3", "o-2"),
    ]
    messages = [document["error"]["message"] for document in done.json[1:3]]
    assert messages[0].startswith("stdin line 2, column ")
    assert messages[1].startswith("stdin line 3: ")
    # Each element has a line of its own in one array.
    assert len(done.out.splitlines()) == 4 + 2
    done = cli("compute", "offer", "post", "-", stdin="{\n[\n")
    assert (done.code, done.out) == (2, "")


def test_withdraw_leaves_running_jobs_alone(cli: Cli) -> None:
    cli.active()
    assert cli.ok("compute", "offer", "withdraw", "o-1") == "withdrew offer o-1\n"
    assert cli.offer()["state"] == "withdrawn"
    assert cli(*cli.job_arguments("j2")).code == 5
    cli.ok("compute", "cancel", "j1")
    offer = cli.offer()
    assert (offer["state"], offer["units_reserved"], offer["units_left"]) == ("withdrawn", 0, 1000)
    assert cli(*cli.job_arguments("j2")).code == 5


def test_withdraw_again_changes_nothing(cli: Cli) -> None:
    cli.post()
    document = cli.document("compute", "offer", "withdraw", "o-1")
    assert list(document) == [*OFFER_FIELDS, "changed"]
    assert document["changed"] is True
    assert cli.ok("compute", "offer", "withdraw", "o-1") == "offer o-1 already withdrawn\n"
    assert cli.document("compute", "offer", "withdraw", "o-1") == document | {"changed": False}


def test_withdraw_of_many_tells_each(cli: Cli) -> None:
    cli.post()
    cli.post()
    done = cli("compute", "offer", "withdraw", "o-1", "nope", "-", stdin="o-2\n")
    assert done == (
        7,
        "withdrew offer o-1\noffer nope does not exist\nwithdrew offer o-2\n",
        "1 of 3 failed: 1 not_found\nhint: not_found: see `tb-cli compute offer list`\n",
    )
    assert {cli.offer(name)["state"] for name in ("o-1", "o-2")} == {"withdrawn"}


def test_post_waits_for_what_a_shell_substitutes(cli: Cli) -> None:
    """`<(…)` is a FIFO whose writer may take a while."""
    cli.ok("state", "init")
    reader, writer = os.pipe()
    arguments = ("compute", "offer", "post", f"/dev/fd/{reader}")
    process = cli.start(*arguments, pass_fds=[reader])
    os.close(reader)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)
    os.write(writer, b'{"offer_id": "o", "provider": "p", "units": 1, "price_per_unit": 1}')
    os.close(writer)
    assert process.communicate(timeout=20) == (b"posted offer o\n", b"")


def test_set_says_what_became_other(cli: Cli) -> None:
    cli.post()
    terms = ("--price", "11", "--units", "+50", "--fee-pct-ct", "40", "--multiplier", "0.5")
    told = (
        "changed offer o-1: price 5 -> 11, units 1000 -> 1050, fee_pct_ct 100 -> 40, "
        "multiplier 1 -> 0.5\n"
    )
    before = cli.offer()
    assert cli.ok("compute", "offer", "set", "o-1", *terms, "-n") == f"dry_run: {told}"
    assert cli.offer() == before
    assert cli.ok("compute", "offer", "set", "o-1", *terms) == told
    offer = cli.offer()
    assert (offer["price_per_unit"], offer["units"], offer["effective_price"]) == (11, 1050, 6)
    same = ("compute", "offer", "set", "o-1", "--price", "11")
    assert cli.ok(*same) == "offer o-1 unchanged: open\n"
    document = cli.document(*same[:-1], "12")
    assert list(document) == [*OFFER_FIELDS, "changed", "before"]
    assert (document["changed"], document["before"]) == (True, {"price_per_unit": 11})
    events = cli("log", "--event", "offer_changed", "--jsonl").jsonl
    assert events[-1]["detail"] == {"was_price_per_unit": 11, "price_per_unit": 12}


def test_shown_offer_goes_into_post_and_set(cli: Cli) -> None:
    cli.active()
    shown = cli.ok("compute", "offer", "show", "o-1", "--json")
    again = cli.ok("compute", "offer", "post", "-", stdin=shown)
    assert again == "offer o-1 exists, unchanged: open\n"
    assert cli.ok("compute", "offer", "set", "-", stdin=shown) == "offer o-1 unchanged: open\n"
    offer = json.loads(shown) | {"price_per_unit": 9, "units": 1001}
    told = "changed offer o-1: price 5 -> 9, units 1000 -> 1001\n"
    assert cli.ok("compute", "offer", "set", "-", stdin=json.dumps(offer)) == told
    # Posted under another id it is another offer, on its own terms.
    offer |= {"offer_id": "copy"}
    assert cli.ok("compute", "offer", "post", "-", stdin=json.dumps(offer)) == (
        "posted offer copy\n"
    )
    assert cli.offer("copy")["units_left"] == 1001
    listed = cli.ok("compute", "offer", "list", "--jsonl")
    assert cli.ok("compute", "offer", "set", "-", "--price", "3", stdin=listed) == (
        "changed offer copy: price 9 -> 3\nchanged offer o-1: price 9 -> 3\n"
    )


def test_set_of_many_tells_each_and_keeps_what_failed(cli: Cli) -> None:
    cli.post()
    cli.post()
    left = cli.directory / "left"
    asked = ("compute", "offer", "set", "o-1", "nope", "o-2", "--units", "-1")
    done = cli(*asked, "--failed-to", left)
    assert done.code == 7
    assert done.out == (
        "changed offer o-1: units 1000 -> 999\noffer nope does not exist\n"
        "changed offer o-2: units 1000 -> 999\n"
    )
    assert left.read_text() == "nope\n"
    assert cli(*asked, "--atomic").code == 7
    assert cli.offer()["units"] == 999


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("o-1",), "nothing is to be changed"),
        (("o-1", "--units", "50"), "--units: '50' does not say how many more or fewer"),
        (("o-1", "--units", "+"), "--units: '+' does not say how many more or fewer"),
        (("o-1", "--units", "+9223372036854775808"), "--units: '+922"),
        (("o-1", "-", "--price", "1"), "- stands alone"),
        (("o-1", "o-2", "--price", "1", "--key", "k"), "--key is that of one change"),
        (("o 1", "--price", "1"), "offer id 'o 1' has the character ' '"),
    ],
)
def test_set_of_what_no_offer_can_be_is_a_usage_error(
    cli: Cli, arguments: tuple[str, ...], message: str
) -> None:
    cli.post()
    before = cli.data.read_bytes()
    done = cli("compute", "offer", "set", *arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"error[usage]: {message}"), done
    assert cli.data.read_bytes() == before


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ({"price_per_unit": 9}, "offer_id is missing"),
        ({"offer_id": "o-1"}, "nothing is to be changed"),
        ({"offer_id": "o-1", "units": "many"}, "units"),
        ({"offer_id": "o-1", "colour": "red"}, "unknown field colour"),
        ({"offer_id": "o-1", "price_per_unit": 1.5}, "price_per_unit"),
    ],
)
def test_set_names_what_is_wrong_on_stdin(cli: Cli, document: dict[str, Any], problem: str) -> None:
    cli.post()
    done = cli("compute", "offer", "set", "-", stdin=json.dumps(document))
    assert done.code == 2
    assert "stdin" in done.err
    assert problem in done.err
    assert cli.offer()["price_per_unit"] == 5


def test_set_of_the_market_price_takes_it_from_the_board(cli: Cli) -> None:
    cli.post()
    done = cli("compute", "offer", "set", "o-1", "--price", "0")
    assert (done.code, done.out) == (5, "no price data\n")


def test_list_of_offers_goes_into_post_and_set(cli: Cli) -> None:
    for name in "abc":
        cli.post("--offer-id", name)
    shown = cli.ok("compute", "offer", "show", "a", "b", "c", "--json")
    unchanged = "".join(f"offer {name} unchanged: open\n" for name in "abc")
    for text in (shown, json.dumps(json.loads(shown)), json.dumps(json.loads(shown), indent=2)):
        assert cli.ok("compute", "offer", "set", "-", stdin=text) == unchanged
        assert cli.ok("compute", "offer", "post", "-", stdin=text).count("exists, unchanged") == 3
    listed = cli.ok("compute", "offer", "list", "--json")
    assert cli.ok("compute", "offer", "set", "-", "--price", "3", stdin=listed) == "".join(
        f"changed offer {name}: price 5 -> 3\n" for name in "abc"
    )
    done = cli("compute", "offer", "set", "-", "--price", "9", stdin=listed.rstrip()[:-1])
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error[usage]: stdin: the list that begins in line 1 does not end\n")
    assert cli.offer("a")["price_per_unit"] == 3


@pytest.mark.parametrize("indent", [None, 2])
def test_elements_of_a_list_that_fail_or_are_left_are_written_one_per_line(
    cli: Cli, indent: int | None
) -> None:
    left = cli.directory / "left"
    asked = [MINIMAL | {"offer_id": name} for name in "abcdef"]
    asked[1] |= {"units": -1}
    asked[3] |= {"offer_id": "d d"}
    text = json.dumps(asked, indent=indent)
    post = ("compute", "offer", "post", "-", "--chunk", "2", "--failed-to", left)
    done = cli(*post, stdin=text)
    assert (done.code, done.out.count("posted offer ")) == (7, 4)
    assert [json.loads(line) for line in left.read_text().splitlines()] == [asked[1], asked[3]]
    # What follows the list stops the reading; what was not dealt with is kept.
    cli.advance(1)
    done = cli(*post, stdin=json.dumps([each | {"offer_id": "a"} for each in asked[:1]]) + text)
    assert done.code == 2
    assert "more stands behind the list" in done.err


@pytest.mark.parametrize("chunk", [1, 2, 1000])
@pytest.mark.parametrize(
    "form",
    [
        "[\n{0},\n{1},\n{2}] {3}\n{4}\n",  # More stands behind the list.
        "[{0},{1},{2}] {3}\n{4}\n",
        "[{0},{1},{2}]{3}\n[{4}]\n",
        "[\n{0},\n{1},\n{2},\n{3},\n{4}\n",  # It has no end.
        "[{0},{1},{2},{3},{4}",
    ],
)
def test_what_was_not_tried_of_a_list_that_breaks_off_can_be_handed_in(
    cli: Cli, form: str, chunk: int
) -> None:
    left = cli.directory / "left"
    asked = [json.dumps(MINIMAL | {"offer_id": name}) for name in "abcde"]
    post = ("compute", "offer", "post", "-", "--chunk", str(chunk), "--failed-to", left)
    done = cli(*post, stdin=form.format(*asked))
    assert done.code == (2 if chunk == 1000 else 7)
    posted = re.findall(r"posted offer (.)", done.out)
    kept = [json.loads(line)["offer_id"] for line in left.read_text().splitlines()]
    assert sorted(posted + kept) == ["a", "b", "c", "d", "e"]
    assert bool(posted) == (chunk < 1000)
    assert cli(*post, stdin=left.read_text()).code == 0
    assert len(cli.document("compute", "offer", "list")) == 5


def test_list_behind_a_byte_order_mark_changes_nothing(cli: Cli) -> None:
    cli.ok("state", "init")
    asked = [json.dumps(MINIMAL | {"offer_id": name}) for name in "ab"]
    for form in ("[{0},{1}]", "[\n{0},\n{1}\n]\n"):
        text = b"\xef\xbb\xbf" + form.format(*asked).encode()
        done = cli("compute", "offer", "post", "-", stdin=text)
        assert (done.code, done.out) == (2, "")
        assert "byte order mark" in done.err
    assert cli.document("compute", "offer", "list") == []


def test_error_of_an_element_names_its_place_once(cli: Cli) -> None:
    good = json.dumps(MINIMAL | {"offer_id": "a"})
    done = cli("compute", "offer", "post", "-", stdin=f"[{good},,{good}]")
    (told,) = [line for line in done.out.splitlines() if "JSON object" in line]
    assert told == f"stdin line 1, element 2, column {len(good) + 3}: expected a JSON object"
