"""`compute explain`: why a job runs, waits or would be refused. `offer explain`: the other side."""

import os
import sys
from collections.abc import Iterator
from typing import Any

from compute_market.errors import UsageError
from compute_market.jobs.explain import explain_draft, explain_stored
from compute_market.records import check_id
from compute_market.store.txn import Txn
from compute_market.text import clipped, counted, quoted
from tb_cli.frame.clocks import now_ms
from tb_cli.frame.job_files import Draft, draft_of
from tb_cli.frame.options import ASKED, OFFER_IDS, check_given, job_terms
from tb_cli.frame.render import emit, shown
from tb_cli.frame.session import Session
from tb_cli.frame.terms import as_meant
from tb_cli.frame.times import instant, local, relative
from tb_cli.frame.verbs import argument, examples, flag, option, takes

# Offers that a terminal shows; the rest with -v.
_SHOWN_MAX = 10


@examples(
    "tb-cli compute explain j-42",
    "tb-cli compute explain job.json --gpu-memory-mb 8192",
    "tb-cli compute explain --buyer alice --gpu H100 --max-price 20",
    "tb-cli compute explain job.json --offer o-7 --json",
)
@takes(
    argument(
        "target",
        "[JOB|FILE|-]",
        "A job id, or a job file, where - reads it from stdin.",
        required=False,
        complete="job",
    ),
    option("--offer", "Only this offer.", complete="offer"),
    flag("--verbose", "-v", help="All offers, on a terminal too."),
    job_terms(),
    ASKED,
)
def explain(
    session: Session,
    target: str | None,
    *,
    offer: str | None,
    verbose: bool,
    given: dict[str, Any],
    capability: dict[str, Any],
) -> None:
    """Says of every offer which conditions it fails, or its rank and price, and which one wins.
    The job is one of the market, or what a file or the options of `submit` describe. If none fits,
    it names the nearest and the least that would have to be otherwise. Looks at the market as it
    is now, and hashes nothing.
    """
    check_given("--offer", offer)
    draft = _draft(session, target, as_meant(given), capability)

    def document(txn: Txn) -> dict[str, Any]:
        if draft is not None:
            return explain_draft(txn, **draft._asdict(), offer_id=offer)
        return explain_stored(txn, target or "", offer)

    found = session.view(document)
    lines = [_line(verdict, found["winner"]) for verdict in found["offers"]]
    eyes = sys.stdout.isatty()
    words = list(_words(found, offer, eyes=eyes))
    if eyes:
        shown_here = lines if verbose or offer is not None else lines[:_SHOWN_MAX]
        left = len(lines) - len(shown_here)
        words += [*shown_here, *([f"{left} more; -v shows all"] if left else [])]
        emit(session, found, words)
    else:
        emit(session, found, [*lines, *words, f"totals: {shown(found['totals'])}"])


@examples("tb-cli compute offer explain o-7", "tb-cli compute offer explain o-7 --since 1h")
@takes(
    OFFER_IDS,
    option("--since", "Jobs that came from then on: 1h ago, or a time.", metavar="WHEN"),
)
def offer(session: Session, offer_ids: list[str], *, since: str | None) -> int:
    """Counts the jobs that came while the offer was there: those it won, those that went to a
    cheaper one, what it lacked for how many, and those that only the standing or the wallet of its
    provider kept away. Each job is judged by the offer as it stands now, as far back as the last
    20000 events of the log. Of several offers each is told; --json has a list of them then.
    """
    from compute_market.jobs.chances import chances
    from tb_cli.frame import several

    since_ms = None if since is None else instant(since, "--since", now_ms())

    def find(txn: Txn, offer_id: str) -> list[dict[str, Any]]:
        return [chances(txn, offer_id, since_ms)]

    return several.show(session, offer_ids, "offer id", find, _chances)


def _chances(found: dict[str, Any]) -> Iterator[str]:
    seen = counted(found["seen"], "job")
    yield f"{found['offer_id']}: {seen} seen, {found['won']} won, since {local(found['since_ms'])}"
    if found["is_cut"]:
        yield "the log tells nothing before, or is too long to be read"
    if found["state"] == "withdrawn":
        yield "the offer is withdrawn: nobody can take it"
    if found["undercut"]:
        prices = f"median winner {found['winner_price']}, this offer {found['effective_price']}"
        yield f"undercut: {found['undercut']} ({prices})"
    if found["lacking"]:
        lacked = ", ".join(f"{name} {count}" for name, count in found["lacked"].items())
        yield f"lacked: {found['lacking']} ({lacked})"
    for name, why in _KEPT.items():
        if found[name]:
            yield f"{name.replace('_', ' ')}: {found[name]} ({why})"


# What kept jobs away beside the terms of an offer.
_KEPT = {
    "barred": "the score of the provider is below 0",
    "unfunded": "the wallet of the provider does not hold the bond",
    "fits_now": "it would fit now; it did not then, or the market did not let the job in",
    "unknown": "nothing says what they asked for",
}


def _line(verdict: dict[str, Any], winner: dict[str, Any] | None) -> str:
    """One offer: what it lacks, or where it stands among those that fit."""
    if not verdict["fits"] or winner is None:
        return f"{verdict['offer_id']}: " + "; ".join(s["text"] for s in verdict["shortfalls"])
    said = f"{verdict['offer_id']}: fits at {verdict['effective_price']}"
    if verdict["wins"]:
        return f"{said}, wins"
    before = f"{winner['offer_id']} wins at {winner['effective_price']}"
    return f"{said}, rank {verdict['rank']}: {before}"


def _words(found: dict[str, Any], offer: str | None, *, eyes: bool) -> Iterator[str]:
    """What there is to say beside the single offers, the most important first."""
    if found["note"] is not None:
        yield found["note"]
    fitting, considered, winner = found["fitting"], found["considered"], found["winner"]
    if not considered and offer is not None:
        yield f"offer {offer} is withdrawn: nobody can take it"
    elif not considered:
        yield "there are no offers: `tb-cli compute offer post` posts one"
    elif winner is None or not fitting:
        yield f"{fitting} of {considered} fit"
    else:
        cheapest = f"{winner['effective_price']} from {winner['provider']} ({winner['offer_id']})"
        yield f"{fitting} of {considered} fit; cheapest {cheapest}"
    if found["nearest"] is not None:
        near = found["nearest"]
        changes = " and ".join(each["text"] for each in near["changes"])
        yield f"nearest: {near['offer_id']} of {near['provider']} would fit with {changes}"
    if found["held"] is not None:
        held = found["held"]
        hint = f"; {held['hint']}" if held.get("hint") else ""
        yield f"held: {held['by'] or 'nothing'}: {held['message']}{hint}"
    if found["queue"] is not None:
        queue = found["queue"]
        ahead = " ".join(queue["ahead"])
        more = queue["place"] - 1 - len(queue["ahead"]) - queue["held_ahead"]
        behind = f", behind {ahead}" + (f" and {more} more" if more else "") if ahead else ""
        held = f"; {queue['held_ahead']} before it on hold" if queue["held_ahead"] else ""
        yield f"queue: place {queue['place']} of {queue['waiting']}{behind}{held}"
    if found["decision"] is not None:
        yield f"decision: {_decision(found['decision']) if eyes else shown(found['decision'])}"


def _decision(said: dict[str, Any]) -> str:
    why = ": ".join(str(said[name]) for name in ("reason", "message") if said.get(name))
    return f"{said['verdict']} {relative(said['at'], now_ms() // 1000)}" + (why and f": {why}")


def _draft(
    session: Session, target: str | None, given: dict[str, Any], capability: dict[str, Any]
) -> Draft | None:
    """The job a file or options describe, or None when the text is the id of a job."""
    described = bool(given or capability)
    if target is None and not described:
        raise UsageError(
            "nothing to explain", hint="name a job or a job file, or what one asks for"
        )
    if target is not None and target != "-" and not os.path.isfile(target):
        try:
            check_id(target, "the job id")
        except UsageError as error:
            message = f"{clipped(quoted(target))} is no file, and {clipped(error.message)}"
            raise UsageError(message, hint=error.hint) from error
        if described:
            raise UsageError(
                f"{target} is no file: options are for a file, or for a job without one",
                hint=f"`tb-cli compute explain {target}` explains the job as it is",
            )
        return None
    root = session.config.slice_root
    return draft_of(target, given, capability, slice_root=root, verb=explain)
