"""`compute-market receipts list|show`."""

import lmdb
import pytest

from compute_market.jobs import handovers, jobs
from compute_market.offers import offers
from tests.support.cli import MIB, RECEIPT_FIELDS, Cli

pytest_plugins = ("tests.support.cli",)

RECEIPTS = ("compute-market", "receipts")
# The fixed point of chapter 1.9 for ("job", "buyer", "prov", 5, 1).
KEY = "291dd6b55e3a3d7bdb78fe9ddffdd84dbea179e65f80d35418e627035e16edfd"


def execute(cli: Cli, *job_ids: str, buyer: str = "alice") -> None:
    for job_id in job_ids:
        cli.submit(job_id, buyer=buyer)
    cli.ok("compute", "execute", *job_ids)


def test_list_prints_one_line_per_receipt(cli: Cli) -> None:
    cli.post()
    execute(cli, "job", buyer="buyer")
    assert cli.ok(*RECEIPTS, "list") == f"1\tjob\tprov\t1\t5\trecorded\t{KEY}\n"


def test_list_of_nothing_is_empty(cli: Cli) -> None:
    cli.ok("state", "init")
    assert cli.ok(*RECEIPTS, "list") == ""
    assert cli.document(*RECEIPTS, "list") == []


def test_list_keeps_the_order_of_issue(cli: Cli) -> None:
    cli.post()
    execute(cli, "z", "a", "m")
    assert [row[1] for row in cli(*RECEIPTS, "list").rows] == ["z", "a", "m"]
    assert [row[1] for row in cli(*RECEIPTS, "list", "--limit", "2").rows] == ["a", "m"]
    assert [row[1] for row in cli(*RECEIPTS, "list", "--job", "m").rows] == ["m"]
    documents = cli.document(*RECEIPTS, "list")
    assert cli(*RECEIPTS, "list", "--jsonl").jsonl == documents
    assert [document["seq"] for document in documents] == [1, 2, 3]


def test_list_goes_on_over_the_page(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from tb_cli.frame import paging

    cli.post()
    execute(cli, *"abcde")
    for page in (1, 2, 5, 6):
        monkeypatch.setattr(paging, "PAGE", page)
        assert [row[1] for row in cli(*RECEIPTS, "list").rows] == list("abcde")
        assert [row[1] for row in cli(*RECEIPTS, "list", "--limit", "3").rows] == list("cde")


def test_show_takes_a_job_or_a_key(cli: Cli) -> None:
    cli.real()
    cli.ok("wallet", "deposit", "buyer", "--ct", "10", "--it", "10")
    cli.post("--fee-pct-ct", "50")
    execute(cli, "job", buyer="buyer")
    expected = {
        "version": 1,
        "job_id": "job",
        "buyer": "buyer",
        "provider": "prov",
        "quote_price": 5,
        "units": 1,
        "issued_at": cli.now,
        "idempotency_key": KEY,
        "lane": "industrial",
        "dry_run": False,
        "status": "applied",
        "paid": {"ct": 3, "it": 2},
        "seq": 1,
    }
    document = cli.document(*RECEIPTS, "show", "job")
    assert document == expected
    assert list(document) == RECEIPT_FIELDS
    for key in (KEY, KEY.upper()):
        assert cli.document(*RECEIPTS, "show", key) == expected
    assert cli.ok(*RECEIPTS, "show", "job").splitlines() == [
        "version: 1",
        "job_id: job",
        "buyer: buyer",
        "provider: prov",
        "quote_price: 5",
        "units: 1",
        f"issued_at: {cli.now}",
        f"idempotency_key: {KEY}",
        "lane: industrial",
        "dry_run: false",
        "status: applied",
        "paid: ct=3 it=2",
        "seq: 1",
    ]


def test_cancelled_job_has_a_receipt_for_what_was_proven(cli: Cli) -> None:
    cli.post()
    cli.submit("j1", slices=[cli.slice("s0", bytes(MIB + 1)), cli.slice("s1")])
    cli.ok("compute", "prove", "j1", "0", cli.ok("compute", "run", "s0")[:64])
    cli.ok("compute", "cancel", "j1")
    receipt = cli.document(*RECEIPTS, "show", "j1")
    assert (receipt["units"], receipt["dry_run"], receipt["status"]) == (2, True, "recorded")
    assert receipt["paid"] == {"ct": 0, "it": 0}


@pytest.mark.parametrize("target", ["live", "cancelled", "unknown", "0" * 64])
def test_show_without_a_receipt_is_not_found(cli: Cli, target: str) -> None:
    cli.active("live", "cancelled")
    cli.ok("compute", "cancel", "cancelled")
    error = (
        f"error[not_found]: there is no receipt of {target}\n"
        "hint: see `tb-cli compute-market receipts list`\n"
    )
    assert cli(*RECEIPTS, "show", target) == (3, "", error)


def test_damaged_receipt_goes_to_quarantine_once(cli: Cli) -> None:
    cli.audited = False
    cli.post()
    execute(cli, "j1", "j2")
    key = bytes.fromhex(cli.document(*RECEIPTS, "show", "j1")["idempotency_key"])
    env = lmdb.open(str(cli.home / "market"), max_dbs=64, map_size=2**30)
    with env.begin(write=True, db=env.open_db(b"receipts", create=False)) as txn:
        txn.put(key, b"\xc1garbage")
    env.close()
    done = cli(*RECEIPTS, "list")
    assert (done.code, [row[1] for row in done.rows]) == (0, ["j2"])
    told = "warning: damaged receipts are left out; `tb-cli compute-market audit` names them\n"
    assert done.err == told
    # Looking moves nothing.
    assert cli(*RECEIPTS, "list") == done
    assert "receipt_corrupt_total 0.0\n" in cli.ok("metrics")
    cli.ok("tick")
    cli.ok("tick")
    assert [row[1] for row in cli(*RECEIPTS, "list").rows] == ["j2"]
    assert cli.document("log", "--event", "receipt_quarantined")[0]["detail"]["key"] == key.hex()
    assert "receipt_corrupt_total 1.0\n" in cli.ok("metrics")
    assert cli("compute-market", "audit").code == 9


def test_show_of_a_job_that_was_handed_over_has_one_for_each_provider(cli: Cli) -> None:
    cli.real()
    cli.ok("wallet", "deposit", "second", "--ct", "100")
    cli.post("--offer-id", "first")
    slices = [cli.slice(name, name.encode()) for name in ("s0", "s1", "s2")]
    digests = [line[:64] for line in cli.ok("compute", "run", *slices).splitlines()]
    cli.submit("j1", slices=slices)
    cli.ok("compute", "prove", "j1", "0", digests[0])
    cli.post("--offer-id", "next", provider="second")
    cli.update(lambda txn: handovers.hand_over(txn, jobs.get(txn, "j1"), offers.get(txn, "next")))
    job = cli.job()
    assert (job["state"], job["provider"], job["offer_id"]) == ("active", "second", "next")
    cli.ok("compute", "execute", "j1")
    found = cli.document(*RECEIPTS, "show", "j1")
    assert [(receipt["provider"], receipt["units"]) for receipt in found] == [
        ("prov", 1),
        ("second", 2),
    ]
    assert {receipt["status"] for receipt in found} == {"applied"}
    text = cli.ok(*RECEIPTS, "show", "j1")
    assert text.count("job_id: j1\n") == 2
    # Each by its key, and both in the list.
    for receipt in found:
        assert cli.document(*RECEIPTS, "show", receipt["idempotency_key"]) == receipt
    assert cli.document(*RECEIPTS, "list", "--job", "j1") == found
    assert (cli.wallet("prov"), cli.wallet("second")) == ((105, 0), (110, 0))
