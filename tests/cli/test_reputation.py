"""`net reputation show`, `adjust`, `export`, `import`, and the snapshot in the home."""

import json
from pathlib import Path
from typing import Any

import pytest

from compute_market.offers import standing
from compute_market.reputation import gossip
from compute_market.reputation.gossip import ENTRIES_MAX, Told
from compute_market.signatures import keys
from compute_market.signatures.keys import Key
from compute_market.store.txn import Txn
from tests.support.cli import Cli, Done

pytest_plugins = ("tests.support.cli",)

DAY = 86_400
REPUTATION = ("net", "reputation")
KEY = keys.key_of(bytes(range(32)))
OTHER_KEY = keys.key_of(bytes(range(1, 33)))
THEIRS = bytes(range(16))
GOOD_AGAIN = "1 provider in good standing again"


def listed(cli: Cli) -> dict[str, int]:
    return {row["provider"]: row["score"] for row in cli.document(*REPUTATION, "show")}


def adjust(cli: Cli, provider: str, delta: str, *extra: str) -> dict[str, Any]:
    found: dict[str, Any] = cli.document(
        *REPUTATION, "adjust", provider, delta, "--reason", "r", *extra
    )
    return found


def trust(cli: Cli, *key_ids: str, **settings: str) -> None:
    cli.home.mkdir(exist_ok=True)
    lines = [f"{name} = {value}\n" for name, value in settings.items()]
    listed = ", ".join(f'"{each}"' for each in key_ids)
    (cli.home / "config.toml").write_text("".join(lines) + f"[net]\ntrusted = [{listed}]\n")


def write(cli: Cli, *entries: Told, key: Key = KEY, name: str = "scores.tb") -> Path:
    path = cli.directory / name
    path.write_bytes(b"".join(gossip.messages(entries, key, THEIRS, cli.now_ms)))
    return path


def test_reputation_shows_the_best_first(cli: Cli) -> None:
    cli.post("--reputation", "3", provider="good")
    cli.post("--reputation", "-4", provider="bad")
    cli.post(provider="new")
    at = cli.now
    assert cli.ok("net", "reputation", "show").splitlines() == [
        f"good\t3\t3\t{cli.document('net', 'reputation', 'show')[0]['epoch']}\t{at}",
        f"new\t0\t0\t{cli.document('net', 'reputation', 'show', 'new')[0]['epoch']}\t{at}",
        f"bad\t-4\t-4\t{cli.document('net', 'reputation', 'show', 'bad')[0]['epoch']}\t{at}",
    ]
    only = cli.document("net", "reputation", "show", "--limit", "1")
    fields = ["provider", "score", "seed", "epoch", "last_change", "barred", "barred_until"]
    assert [list(row) for row in only] == [fields]
    assert cli("net", "reputation", "show", "--limit", "1", "--jsonl").jsonl == only
    error = (
        "error[not_found]: provider nobody has no score\n"
        "hint: a provider gets one with its first offer; see `tb-cli net reputation show`\n"
    )
    assert cli("net", "reputation", "show", "nobody") == (3, "", error)


def test_reputation_shows_scores_as_they_have_faded(cli: Cli) -> None:
    cli.post("--reputation", "100", provider="good")
    cli.post("--reputation", "97", provider="late")
    cli.advance(DAY)
    adjust(cli, "late", "+3")
    assert listed(cli) == {"good": 95, "late": 95}
    cli.advance(DAY)
    assert listed(cli) == {"good": 90, "late": 90}
    found = cli.document(*REPUTATION, "show", "late")[0]
    assert (found["score"], found["seed"]) == (90, 87)


# Adjusting.


@pytest.mark.parametrize(
    ("delta", "score"), [("+5", 2), ("5", 2), ("-5", -8), ("-2000", -1000), ("+2000", 1000)]
)
def test_adjust_adds_to_a_score(cli: Cli, delta: str, score: int) -> None:
    cli.post("--reputation", "-3")
    assert cli.ok(*REPUTATION, "adjust", "prov", delta, "--reason", "power cut") == (
        f"score of prov: {score}, was -3\n"
    )
    assert cli.score() == score
    assert cli.offer()["shelf"] == ("barred" if score < 0 else "unfunded")


def test_adjust_is_read_alike_by_the_parser_and_without_it(cli: Cli) -> None:
    cli.post("--reputation", "10")
    # A spelling with `=` is the parser's.
    for words in (("-3", "--reason=r"), ("-3", "--reason", "r"), ("--reason=r", "-3")):
        cli.ok(*REPUTATION, "adjust", "prov", *words)
    assert cli.score() == 1


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("prov", "0", "--reason", "r"), 2, "±N is 0"),
        (("prov", "+2001", "--reason", "r"), 2, "2001 is not -2000…2000"),
        (("prov", "x", "--reason", "r"), 2, "'x' is no whole number"),
        (("prov", "+-1", "--reason", "r"), 2, "'+-1' is no whole number"),
        (("prov", "-1.5", "--reason", "r"), 2, "'-1.5' is no whole number"),
        (("prov", "3"), 2, "--reason is missing"),
        (("prov", "3", "--reason", ""), 2, "--reason is empty"),
        (("prov", "3", "--reason", " \u2003 "), 2, "--reason is empty"),
        (("prov", "3", "--reason", "r" * 201), 2, "201 characters, at most 200 are allowed"),
        (("prov", "3", "--nope", "--reason", "r"), 2, "--nope"),
        (("a b", "3", "--reason", "r"), 2, "provider 'a b' has the character ' '"),
        (("nobody", "3", "--reason", "r"), 3, "provider nobody has no score"),
    ],
)
def test_adjust_refuses_what_it_cannot_mean(
    cli: Cli, words: tuple[str, ...], code: int, says: str
) -> None:
    cli.post()
    done = cli(*REPUTATION, "adjust", *words)
    assert (done.code, done.out) == (code, "")
    assert says in done.err
    assert cli.score() == 0


def test_adjust_with_the_same_key_and_another_reason_is_a_conflict(cli: Cli) -> None:
    cli.post()
    words = (*REPUTATION, "adjust", "prov", "+1", "--key", "k", "--reason")
    cli.ok(*words, "r" * 200)
    assert cli.ok(*words, "r" * 200) == "key k was used: unchanged\n"
    done = cli(*words, "other", "--json")
    assert (done.code, done.error["field"]) == (6, "reason")
    assert cli.score() == 1


def test_adjust_in_a_dry_run_changes_nothing(cli: Cli) -> None:
    cli.post("--reputation", "-3")
    text = cli.ok(*REPUTATION, "adjust", "prov", "+5", "--reason", "r", "-n")
    assert text == "dry_run: score of prov: 2, was -3\n"
    assert cli.score() == -3


def test_history_tells_who_changed_a_score_and_why(cli: Cli) -> None:
    cli.active("j1", "j2")
    cli.post(provider="other")
    cli.ok("compute", "execute", "j1")
    cli.ok("compute", "cancel", "j2", "--by", "provider")
    adjust(cli, "prov", "+4")
    adjust(cli, "other", "-1")
    found = cli.document(*REPUTATION, "show", "prov", "--history")
    assert [(each["event"], each["detail"]) for each in found] == [
        ("score_changed", {"delta": 1, "score": 1}),
        ("score_changed", {"delta": -1, "score": 0}),
        ("score_adjusted", {"delta": 4, "score": 4, "reason": "r"}),
    ]
    assert found[-1]["command"].startswith("net reputation adjust prov +4 --reason r")
    newest = cli(*REPUTATION, "show", "prov", "--history", "--limit", "1", "--jsonl").jsonl
    assert newest == found[-1:]
    assert len(cli(*REPUTATION, "show", "other", "--history").rows) == 1
    assert cli(*REPUTATION, "show", "--history").code == 2
    assert cli(*REPUTATION, "show", "nobody", "--history").code == 3


def test_tick_tells_of_who_is_barred_by_other_settings(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli.post("--reputation", "-1")
    cli.advance(14 * DAY)
    cli.ok("tick", due=GOOD_AGAIN)
    monkeypatch.setenv("TB_PROVIDER_REPUTATION_DECAY", "0")
    done = cli("tick", "--json")
    assert done.json["changed"] is True
    assert done.err == "1 provider in bad standing by other settings\n"
    assert cli.offer()["barred_by"]["score"] == -1
    assert cli.document("tick")["changed"] is False
    found = cli.document(*REPUTATION, "show", "prov", "--history")
    assert [(each["event"], each["detail"]["score"]) for each in found] == [
        ("score_restored", 0),
        ("score_barred", -1),
    ]


def test_tick_tells_in_one_line_of_all_that_was_due(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compute_market.housekeeping.SCORES_LIMIT", 2)
    for number in range(5):
        cli.post("--reputation", "-1", provider=f"p{number}")
    cli.advance(14 * DAY)
    done = cli("tick", "--json")
    assert (done.code, done.err) == (0, "5 providers in good standing again\n")
    assert done.json["changed"] is True
    assert [each["shelf"] for each in cli.document("compute", "offer", "list")] == ["unfunded"] * 5


def test_tick_that_forgets_a_provider_has_changed_something(cli: Cli) -> None:
    cli.post()
    cli.advance(8 * DAY)
    assert cli.document("tick")["changed"] is True
    assert listed(cli) == {}
    assert cli.document("tick")["changed"] is False


def test_history_knows_a_provider_that_was_forgotten(cli: Cli) -> None:
    cli.post("--reputation", "-1")
    cli.advance(30 * DAY)
    cli.ok("tick", due=GOOD_AGAIN)
    assert cli(*REPUTATION, "show", "prov").code == 3
    (event,) = cli.document(*REPUTATION, "show", "prov", "--history")
    assert event["event"] == "score_restored"


# Files for other markets.


def test_scores_go_from_one_market_to_another(cli: Cli, tmp_path: Path) -> None:
    cli.active("j1")
    cli.ok("compute", "execute", "j1")
    cli.post("--reputation", "900", provider="boasts")
    cli.post(provider="bad")
    adjust(cli, "bad", "-7")
    done = cli(*REPUTATION, "export", "scores.tb", "--json")
    key_id = done.json["key"]
    assert (done.code, done.json["scores"], done.json["messages"]) == (0, 2, 1)
    assert done.err == f"made key node, which signs what goes to other markets: {key_id}\n"
    assert (
        cli(*REPUTATION, "export", "-").out.splitlines()[1:-1]
        == ((cli.directory / "scores.tb").read_text().splitlines()[1:-1])
    )

    cli.home = tmp_path / "other"
    other = ("--home", str(cli.home))
    cli.ok(*other, "state", "init")
    cli.ok(*other, "compute", "offer", "post", "--provider", "bad", "--units", "1", "--price", "1")
    done = cli(*other, *REPUTATION, "import", "scores.tb", "--json")
    assert (done.code, done.error["reason"], done.error["key_id"]) == (5, "untrusted_key", key_id)
    trust(cli, key_id)
    cli.advance(10)
    adjusted = cli(*other, *REPUTATION, "import", "scores.tb")
    assert adjusted == (0, "applied 2, ignored 0\n", "")
    assert cli(*other, *REPUTATION, "import", "scores.tb") == (
        0,
        "applied 0, ignored 2 (2 not newer)\n",
        "",
    )
    shown = cli.document(*other, *REPUTATION, "show")
    assert [(row["provider"], row["score"], row["barred"]) for row in shown] == [
        ("prov", 1, False),
        ("bad", -7, True),
    ]
    assert cli.document(*other, "compute", "offer", "show", "o-1")["shelf"] == "barred"
    metrics = cli.ok(*other, "metrics")
    assert 'reputation_gossip_total{result="applied"} 2.0' in metrics
    assert 'reputation_gossip_total{result="ignored"} 2.0' in metrics


def test_import_tells_why_entries_are_ignored(cli: Cli) -> None:
    trust(cli, KEY.key_id.hex())
    cli.ok("state", "init")
    path = write(
        cli,
        Told("a", 1, cli.now),
        Told("b", 1, 0),
        Told("c", 1, cli.now + 10_000),
        Told("d", 1001, cli.now),
    )
    assert cli.document(*REPUTATION, "import", path) == {
        "messages": 1,
        "applied": 1,
        "ignored": 3,
        "not_newer": 1,
        "from_the_future": 1,
        "no_score": 1,
        "changed": True,
    }
    assert listed(cli) == {"a": 1}


def test_import_of_many_entries_is_many_messages(cli: Cli) -> None:
    trust(cli, KEY.key_id.hex())
    cli.ok("state", "init")
    entries = [Told(f"p{number}", 1, cli.now) for number in range(2 * ENTRIES_MAX + 1)]
    found = cli.document(*REPUTATION, "import", write(cli, *entries))
    assert (found["messages"], found["applied"]) == (3, len(entries))


def test_import_stops_at_a_message_that_is_not_good(cli: Cli) -> None:
    trust(cli, KEY.key_id.hex())
    cli.ok("state", "init")
    first = write(cli, Told("a", 1, cli.now)).read_bytes()
    second = write(cli, Told("b", 1, cli.now)).read_bytes()
    path = cli.directory / "both.tb"
    path.write_bytes(first + second.replace(b'"b"', b'"c"') + first)
    done = cli(*REPUTATION, "import", path)
    assert (done.code, done.out) == (7, "applied 1, ignored 0\n")
    said = done.err.splitlines()
    assert said[0] == f"message 2 of {path} was not taken, nor any behind it"
    assert said[1].startswith("error[integrity]: the message of scores: the signature is not that")
    assert listed(cli) == {"a": 1}


@pytest.mark.parametrize(
    ("content", "code", "reason"),
    [
        (b"", 9, "malformed"),
        (b"\n", 9, "malformed"),
        (b"nothing\n", 9, "malformed"),
        (b"\x00" * 2_000_000, 9, "malformed"),
        (b'{"format":"tb-receipts","version":1}\n', 9, "malformed"),
    ],
    ids=["empty", "blank", "text", "zeros", "receipts"],
)
def test_import_of_what_is_no_message_is_refused(
    cli: Cli, content: bytes, code: int, reason: str
) -> None:
    cli.ok("state", "init")
    done = cli(*REPUTATION, "import", "-", "--json", stdin=content)
    assert (done.code, done.out, done.error["reason"]) == (code, "", reason)
    assert len(done.err) < 600


def test_import_names_the_file_and_the_line_that_is_wrong(cli: Cli) -> None:
    trust(cli, KEY.key_id.hex())
    cli.ok("state", "init")
    done = cli(*REPUTATION, "import", "-", stdin=b"x")
    assert done == (9, "", "error[integrity]: stdin line 1: the message is cut off here\n")
    path = write(cli, Told("a", 1, cli.now), Told("b", 2, cli.now))
    path.write_bytes(path.read_bytes() * 2 + b"x\n")
    done = cli(*REPUTATION, "import", path)
    assert done.code == 7
    told = "the first line of the message: no JSON: invalid character (byte 0)"
    assert done.err.splitlines()[1] == f"error[integrity]: {path} line 9: {told}"


def test_import_of_a_foreign_key_is_refused_whatever_it_holds(cli: Cli) -> None:
    trust(cli, KEY.key_id.hex())
    cli.ok("state", "init")
    path = write(cli, Told("a", -1000, cli.now), key=OTHER_KEY)
    before = cli.files()
    done = cli(*REPUTATION, "import", path)
    assert (done.code, done.out) == (5, "")
    assert OTHER_KEY.key_id.hex() in done.err
    assert cli.files() == before


def test_import_in_a_dry_run_changes_nothing(cli: Cli) -> None:
    trust(cli, KEY.key_id.hex())
    cli.ok("state", "init")
    path = write(cli, Told("a", 1, cli.now))
    before = cli.files()
    assert cli.ok(*REPUTATION, "import", path, "-n") == "dry_run: applied 1, ignored 0\n"
    assert cli.files() == before


def test_export_in_a_dry_run_makes_nothing(cli: Cli) -> None:
    cli.post()
    adjust(cli, "prov", "1")
    before = cli.files()
    for target in ((), ("scores.tb",), ("-",)):
        done = cli(*REPUTATION, "export", *target, "-n")
        assert (done.code, done.out[:9]) == (0, "dry_run: ")
        said = "dry_run: made key node, which signs what goes to other markets\n"
        assert done.err == (said if target else "")
    assert cli(*REPUTATION, "export", "scores.tb", "-n", "--json").json["key"] is None
    assert cli.files() == before
    assert not (cli.directory / "scores.tb").exists()


def test_market_that_opted_out_neither_tells_nor_listens(cli: Cli) -> None:
    trust(cli, KEY.key_id.hex(), reputation_gossip="false")
    cli.post()
    path = write(cli, Told("a", 1, cli.now))
    for words in (("export", "out.tb"), ("export", "-"), ("import", str(path))):
        done = cli(*REPUTATION, *words, "--json") if "-" not in words else cli(*REPUTATION, *words)
        assert (done.code, done.out) == (5, "")
        assert "reputation_gossip" in done.err
    assert listed(cli) == {"prov": 0}
    assert not (cli.directory / "out.tb").exists()
    assert cli(*REPUTATION, "export").code == 0  # The snapshot is told to nobody.


# The snapshot.


def snapshot(cli: Cli) -> Any:
    return json.loads((cli.home / "reputation.json").read_text())


def test_snapshot_is_an_object_of_providers(cli: Cli) -> None:
    cli.post("--reputation", "5")
    cli.post("--reputation", "-2", provider="bad")
    adjust(cli, "prov", "2")
    path = cli.home / "reputation.json"
    assert cli.ok(*REPUTATION, "export") == f"wrote 2 scores to {path}\n"
    assert snapshot(cli) == {
        "bad": {"score": -2, "last_update": cli.now, "epoch": 0, "seed": -2},
        "prov": {"score": 7, "last_update": cli.now, "epoch": cli.now, "seed": 5},
    }
    assert path.stat().st_mode & 0o777 == 0o600


def test_tick_writes_the_snapshot_when_scores_have_changed(cli: Cli) -> None:
    cli.ok("state", "init")
    path = cli.home / "reputation.json"
    cli.ok("tick")
    assert not path.exists()
    cli.post("--reputation", "5")
    cli.ok("tick", "-n")
    assert not path.exists()
    cli.advance(1)
    cli.ok("tick")
    assert list(snapshot(cli)) == ["prov"]
    path.unlink()
    cli.advance(1)
    cli.ok("tick")
    assert not path.exists()
    adjust(cli, "prov", "1")
    cli.ok("tick")
    assert snapshot(cli)["prov"]["score"] == 6


def test_tick_writes_the_snapshot_when_an_old_word_has_come(cli: Cli) -> None:
    trust(cli, KEY.key_id.hex())
    cli.post()
    cli.ok("tick")
    cli.advance(1)
    cli.ok(*REPUTATION, "import", write(cli, Told("a", -3, cli.now - DAY)))
    cli.ok("tick")
    assert snapshot(cli)["a"]["score"] == -3


def test_tick_that_cannot_write_the_snapshot_warns(cli: Cli) -> None:
    cli.post("--reputation", "5")
    (cli.home / "reputation.json").mkdir()
    done = cli("tick")
    assert done.code == 0
    assert done.err.startswith(f"warning: {cli.home}/reputation.json: is a directory; ")


def begun(cli: Cli, content: str | bytes, *words: str) -> Done:
    """Make a market where there is a snapshot."""
    cli.home.mkdir()
    path = cli.home / "reputation.json"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return cli(*(words or ("state", "init")))


def test_new_market_begins_with_the_snapshot(cli: Cli) -> None:
    yesterday = cli.now - DAY
    entry = {"score": 100, "last_update": yesterday, "epoch": yesterday, "seed": 20}
    bad = {"score": -4, "last_update": cli.now, "epoch": 9, "of_a_newer_release": [1]}
    done = begun(cli, json.dumps({"prov": entry, "bad": bad}))
    assert (done.code, done.err) == (0, "took 2 scores from reputation.json\n")
    assert cli.document(*REPUTATION, "show") == [
        {
            "provider": "prov",
            "score": 95,
            "seed": 19,
            "epoch": yesterday,
            "last_change": yesterday,
            "barred": False,
            "barred_until": None,
        },
        {
            "provider": "bad",
            "score": -4,
            "seed": 0,
            "epoch": 9,
            "last_change": cli.now,
            "barred": True,
            "barred_until": cli.now + 41 * DAY,
        },
    ]
    cli.post("--reputation", "50", provider="bad")
    assert cli.offer()["shelf"] == "barred"
    assert cli.document("log")[0]["event"] == "scores_imported"


def test_snapshot_is_what_a_market_began_with(cli: Cli) -> None:
    cli.post("--reputation", "5")
    adjust(cli, "prov", "-9")
    cli.ok(*REPUTATION, "export")
    before = snapshot(cli)
    shown = cli.document(*REPUTATION, "show")
    content = (cli.home / "reputation.json").read_bytes()
    cli.home = cli.directory / "other"
    cli.home.mkdir()
    (cli.home / "reputation.json").write_bytes(content)
    home = ("--home", str(cli.home))
    cli(*home, "state", "init")
    assert cli.document(*home, *REPUTATION, "show") == shown
    cli.ok(*home, *REPUTATION, "export")
    assert snapshot(cli) == before


def test_epochs_that_ran_ahead_are_those_of_now_to_others(cli: Cli) -> None:
    cli.post()

    def busy(txn: Txn) -> None:
        for _ in range(500):
            standing.record_outcome(txn, "prov", 1)

    cli.ok("key", "new", "node")
    cli.update(busy)
    cli.ok(*REPUTATION, "export", "scores.tb")
    (entry,) = gossip.parse((cli.directory / "scores.tb").read_bytes()).entries
    assert entry == Told("prov", 500, cli.now)
    cli.ok(*REPUTATION, "export")
    content = (cli.home / "reputation.json").read_bytes()
    assert snapshot(cli)["prov"]["epoch"] == cli.now + 499
    cli.home = cli.directory / "other"
    home = ("--home", str(cli.home))
    assert begun(cli, content, *home, "state", "init").err == (
        "took 1 score from reputation.json\n"
    )
    (found,) = cli.document(*home, *REPUTATION, "show")
    assert (found["score"], found["epoch"]) == (500, cli.now)


def test_market_that_is_there_takes_no_snapshot(cli: Cli) -> None:
    cli.ok("state", "init")
    entry = {"score": 100, "last_update": cli.now, "epoch": cli.now}
    (cli.home / "reputation.json").write_text(json.dumps({"prov": entry}))
    cli.post("--reputation", "1")
    cli.ok("tick")
    assert cli.score() == 1


def test_dry_run_of_a_new_market_takes_no_snapshot(cli: Cli) -> None:
    entry = {"score": 100, "last_update": cli.now, "epoch": cli.now}
    done = begun(cli, json.dumps({"prov": entry}), "state", "init", "-n")
    assert done.code == 0
    assert "took" not in done.err
    assert not cli.data.exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "the scores: no JSON: it ends too early"),
        ("{", "no JSON: it ends too early"),
        ("[]", "the scores: expected an object, got a list"),
        ('{"p": {"score": 1, "epoch": 1}}', "the scores: last_update is missing"),
        (
            '{"p": {"score": 1.5, "last_update": 1, "epoch": 1}}',
            "the scores: score: expected a whole number, got a number",
        ),
        ('{"p": {"score": 1001, "last_update": 1, "epoch": 1}}', "the scores: score is above 1000"),
        (
            '{"p": {"score": 1, "last_update": -1, "epoch": 1}}',
            "the scores: last_update is below 0",
        ),
        ('{"a b": {"score": 1, "last_update": 1, "epoch": 1}}', "a provider 'a b' has the char"),
        ('{"p": {"score": 1, "last_update": 99999999999, "epoch": 1}}', "is from the future"),
        (b"\xff\xfe\x00", "no JSON: "),
        (b'{"p": {"x":' + b"[" * 2000, "the scores: nested too deep"),
    ],
)
def test_snapshot_that_cannot_be_used_is_told_and_left(
    cli: Cli, content: str | bytes, says: str
) -> None:
    done = begun(cli, content)
    assert done.code == 0
    assert says in done.err
    (line,) = done.err.splitlines()
    assert line.startswith(f"warning: {cli.home}/reputation.json is left out: ")
    assert listed(cli) == {}
    before = content.encode() if isinstance(content, str) else content
    assert (cli.home / "reputation.json").read_bytes() == before


def test_snapshot_that_is_a_link_is_not_followed(cli: Cli) -> None:
    cli.home.mkdir()
    elsewhere = cli.directory / "elsewhere"
    elsewhere.write_text('{"p": {"score": 1, "last_update": 1, "epoch": 1}}')
    (cli.home / "reputation.json").symlink_to(elsewhere)
    done = cli("state", "init")
    assert done.code == 0
    assert "is a link" in done.err
    assert listed(cli) == {}
