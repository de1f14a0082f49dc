"""What many commands share, for `tb-cli help TOPIC`: told from where each fact has its home."""

import textwrap
from collections.abc import Callable, Iterable
from typing import NamedTuple

Rows = Iterable[tuple[str, str]]


class Topic(NamedTuple):
    """A page beside those of commands."""

    help: str  # one line
    text: Callable[[], str]


def _exit_codes() -> str:
    from compute_market.errors import EXIT_CODES

    rows = [(f"{row.code} {row.token}", row.meaning) for row in EXIT_CODES]
    signals = [("130, 143", "ended by Ctrl-C or TERM, between two transactions")]
    return _page("The exit code is the truth; text is for people.", [*rows, *signals])


def _files() -> str:
    from compute_market import home

    return _page(
        "The home is --home DIR, else $TB_HOME, else ~/.the_block. In it:",
        [
            (home.CONFIG, "your settings; `tb-cli config show` says which are in force"),
            (f"{home.STORE}/{home.DATA}", "the market itself: never delete it"),
            (home.CANCELLATIONS_LOG, "a copy of a table, for eyes"),
            (home.PRICE_BOARD, "the price board"),
            (home.REPUTATION, "a copy of the scores"),
            (home.CALIBRATION, "what `tb-cli compute calibrate` measured"),
            (f"{home.KEYS}/", "keys of your own, and public keys of others"),
            (f"{home.BIDS}/", "what opens sealed bids of yours"),
            (f"{home.SPOOL}/", "bundles that are to be forwarded"),
            (f"{home.OUTBOX}/", "bundles that were forwarded to dir:outbox"),
            (f"{home.INBOX}/", "bundles that other markets brought"),
            (home.SERVE_TOKEN, "the token that changes over HTTP need"),
            (home.LAST_BACKUP, "when `tb-cli state backup` made the last backup, and where"),
        ],
        "Slices stay where they are. Nothing in a home is a link, and its files are private.",
    )


def _formats() -> str:
    from msgspec.structs import fields

    from compute_market.requests import CapabilityRequest, JobRequest, OfferRequest

    def names(kind: type) -> Rows:
        for field in fields(kind):
            must = field.required
            yield field.encode_name, "must be given" if must else "may be left out"

    return _page(
        "A file holds one JSON object, or one per line (JSON lines); - is standard input. Keys\n"
        "that begin with _ are comments, and relative slices are relative to the file.",
        [
            ("a job", "for `tb-cli compute submit FILE`"),
            *((f"  {name}", text) for name, text in names(JobRequest)),
            ("an offer", "for `tb-cli compute offer post FILE`"),
            *((f"  {name}", text) for name, text in names(OfferRequest)),
            ("capability", "what a job asks for, or an offer has"),
            *((f"  {name}", text) for name, text in names(CapabilityRequest)),
        ],
        'A slice is a path, or {"path": …, "reference": its BLAKE3 in 64 hex digits}. Results\n'
        "are text for people, --json for programs, and --jsonl one document per line.",
    )


def _units() -> str:
    return _page(
        "Durations and sizes are written as people do; a bare number is of the unit of the\n"
        "option or setting, seconds mostly. Numbers are the digits 0-9.",
        [
            ("90s 15m 2h 3d", "seconds, minutes, hours, days; 500ms where it may be so short"),
            ("1h30m", "one after the other, from long to short"),
            ("10KiB 10MiB 10GiB", "1024, 1024², 1024³ bytes; so do 10K, 10M, 10G"),
            ("10kB 10MB 10GB", "1000, 1000², 1000³ bytes"),
            ("24GiB", "of the memory of a GPU: 24 · 1024 MB, as its tools count"),
            ("CT, IT", "whole numbers of the two tokens"),
            ("unit", "of work: 1 MiB of slices, begun"),
            ("…_ms, …_at", "in JSON: unix milliseconds, and unix seconds"),
        ],
    )


def _times() -> str:
    return _page(
        "Where a time is asked for, as by --since, it is in the time zone of the machine:",
        [
            ("15m, '2h ago', 3d", "so long ago"),
            ("03:00, 03:00:30", "today"),
            ("2026-11-27", "the beginning of that day"),
            ("2026-11-27T03:00", "that minute; with Z or +02:00 in another zone"),
            ("900", "so many seconds ago, below 1 000 000 000"),
            ("1795750200", "unix seconds, as pipes and JSON print them; milliseconds from 10^12"),
        ],
        "A terminal shows times in tables as how long ago, and in records as the local time.",
    )


def _environment() -> str:
    from compute_market.config.rows import SETTINGS

    return _page(
        "An option wins over a variable, and that over config.toml in the home.",
        [
            ("TB_HOME", "the home directory, where --home is not given"),
            ("TB_BUYER, TB_PROVIDER", "the party, where a command needs one and none is given"),
            ("TB_DEBUG", "set to anything: show where errors come from, as --debug"),
            ("NO_COLOR", "set to anything: plain text on a terminal, as --no-color"),
            ("COLUMNS", "how wide tables and help are"),
            *((each.variable, _first(each.help)) for each in SETTINGS),
        ],
        "`tb-cli config show` says what is in force, and where from.",
    )


def _first(text: str) -> str:
    """The first sentence of a setting's help, on one line."""
    line = " ".join(text.split())
    return line.partition(". ")[0].removesuffix(".")


def _page(head: str, rows: Rows, foot: str = "") -> str:
    rows = list(rows)
    column = min(max(len(name) for name, _ in rows), 34)
    lines = [head, ""]
    for name, text in rows:
        first, *others = textwrap.wrap(text, 96 - column, break_on_hyphens=False)
        if len(name) > column:
            lines.append(f"  {name}")
            name = ""
        lines.append(f"  {name:{column}}  {first}")
        lines += (f"  {'':{column}}  {line}" for line in others)
    return "\n".join([*lines, *(("", foot) if foot else ())]) + "\n"


TOPICS = {
    "exit-codes": Topic("What the exit code of a command says.", _exit_codes),
    "files": Topic("What lies in a home.", _files),
    "formats": Topic("The fields of files of jobs and offers.", _formats),
    "units": Topic("How durations, sizes and amounts are written.", _units),
    "times": Topic("How times are written.", _times),
    "environment": Topic("Variables that commands read.", _environment),
}
