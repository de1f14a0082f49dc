"""Records asked for by several ids: what holds for every verb that shows one."""

import json

import pytest

from tb_cli.frame.listing.options import LISTED
from tb_cli.frame.verbs import parameters_of
from tests.support.cli import Cli
from tests.support.verbs import VERBS

pytest_plugins = ("tests.support.cli",)

ABSENT = "0" * 16
# What a shell completes an argument with that is the id of something.
IDS = {"job", "any job", "offer", "bid", "bundle", "owner", "key"}


def committed(cli: Cli, job_id: str) -> str:
    """The id of a bid for a job."""
    path = cli.directory / "job.json"
    fields = {"buyer": "alice", "workload": "transcode", "max_price_per_unit": 9}
    path.write_text(json.dumps(fields | {"job_id": job_id, "slices": [str(cli.slice())]}))
    found: str = cli.document("bid", "commit", path, "--bidder", "k1", "--owner", "alice")["bid_id"]
    return found


def sent(cli: Cli, content: str) -> str:
    """The id of a bundle's receipt."""
    found: str = cli.document("compute", "courier", "send", "-", "alice", stdin=content)["id"]
    return found


@pytest.mark.parametrize(
    ("verb", "ids", "field"),
    [
        (("compute", "status"), ("j1", "j2"), "job_id"),
        (("compute", "offer", "show"), ("o-1", "o-2"), "offer_id"),
        (("wallet", "balance"), ("alice", "prov"), "owner"),
        (("compute-market", "receipts", "show"), ("j1", "j2"), "job_id"),
        (("compute", "offer", "explain"), ("o-1", "o-2"), "offer_id"),
        (("compute", "courier", "show"), (), "id"),
        (("bid", "show"), (), "bid_id"),
        (("key", "show"), ("k1", "k2"), "name"),
    ],
)
def test_several_are_shown_each_for_itself(
    cli: Cli, verb: tuple[str, ...], ids: tuple[str, ...], field: str
) -> None:
    cli.active("j1", "j2")
    cli.ok("compute", "execute", "j1", "j2")
    cli.post(price=9)
    for name in ("k1", "k2"):
        cli.ok("key", "new", name)
    if verb == ("bid", "show"):
        cli.ok("wallet", "deposit", "alice", "--ct", "1000")
        ids = tuple(committed(cli, job_id) for job_id in ("j3", "j4"))
    if verb == ("compute", "courier", "show"):
        ids = tuple(sent(cli, content) for content in ("one", "two"))
    documents = [cli.document(*verb, each) for each in ids]
    assert [each[field] for each in documents] == list(ids)
    assert cli.document(*verb, *ids) == documents
    # In the order given, each once; also from stdin, where one alone is a list too.
    assert cli.document(*verb, ids[1], *ids) == documents[::-1]
    assert cli.document(*verb, "-", stdin=f"# these\n{ids[1]}\n\n") == documents[1:]
    assert cli.ok(*verb, *ids) == "\n".join(cli.ok(*verb, each) for each in ids)
    # What is missing is told beside the others, and the code is that of a bulk command.
    done = cli(*verb, ids[0], ABSENT, ids[1], "--json")
    assert (done.code, done.json) == (7, documents)
    assert '"error":"not_found"' in done.err
    assert done.err.endswith("1 of 3 failed: 1 not_found\n")
    assert cli(*verb, ABSENT, ABSENT.replace("0", "f")).code == 3
    assert cli(*verb, ABSENT).code == 3
    assert cli(*verb, ids[0], "a b").code == 2
    assert cli(*verb).code == 2


def test_verbs_that_look_at_what_has_an_id_take_several() -> None:
    """But for lists, which are of one thing, and what has a form of its own."""
    others = {"compute requirements", "compute explain", "wallet statement", "bid export"}
    for path, verb in VERBS.items():
        declared = parameters_of(verb.function())
        if verb.writes or " ".join(path) in others or set(LISTED) <= set(declared):
            continue
        for each in declared:
            if not each.spellings and each.complete in IDS:
                assert each.many, path


def test_several_of_no_market_are_told_of_it_once(cli: Cli) -> None:
    done = cli("compute", "status", "j1", "j2")
    assert (done.code, done.out, done.err.count("error[")) == (3, "", 1)
