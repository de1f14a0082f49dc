"""Audits beside twelve processes that change the market: none of them ever cries wolf."""

from pathlib import Path

from tests.support.attacks import Attacks
from tests.support.effort import effort
from tests.support.market import slice_of
from tests.support.processes import Home, Running, fund, ids, slice_files, submit_jobs

JOBS = effort(105, 6000)
LOOKS = (("compute-market", "audit"), ("state", "check"), ("state", "backup"))


def writers(home: Home) -> list[Running]:
    """Twelve, each with work for as long as the others."""
    old = ids("old", JOBS)
    cancel = ("compute", "cancel", "-", "--chunk", "1")
    lines = [f"wallet deposit party --ct 1 --key key{number}" for number in range(JOBS // 2)]
    posts = [
        f"compute offer post --offer-id o{number} --provider p --units 5 --price 9"
        for number in range(JOBS // 2)
    ]
    files = [home.start(*cancel, stdin="\n".join(old[part::7])) for part in range(5)]
    by_provider = [
        home.start(*cancel, "--by", "provider", stdin="\n".join(old[part::7])) for part in (5, 6)
    ]
    batches = [
        home.start("batch", "-", stdin="\n".join(part))
        for part in (lines[::2], lines[1::2], posts[::2], posts[1::2])
    ]
    return [*files, *by_provider, *batches, home.start("compute", "execute", *ids("run", 40))]


def test_audits_beside_writers_never_cry_wolf(tmp_path: Path, attacks: Attacks) -> None:
    home = Home.make(tmp_path / "home")
    fund(home)
    inputs = slice_files(tmp_path / "slices")
    submit_jobs(home, {job_id: [slice_of(10)] for job_id in ids("old", JOBS)})
    submit_jobs(home, dict.fromkeys(ids("run", 40), inputs))
    running = writers(home)
    looks = amidst = 0
    while looks < len(LOOKS) or not all(writer.ended for writer in running):
        arguments = LOOKS[looks % len(LOOKS)]
        if arguments[-1] == "backup":
            home.run(*arguments, str(tmp_path / f"copy-{looks}"))
            arguments = ("--home", str(tmp_path / f"copy-{looks}"), "state", "check")
        look = home.start(*arguments)
        code = look.end()
        assert code == 0, (arguments, look.lines(), look.errors())
        assert look.lines()[-1].endswith("invalid 0")
        looks += 1
        amidst += not all(writer.ended for writer in running)
    codes = [writer.end() for writer in running]
    assert codes == [0] * len(running), [writer.errors() for writer in running]
    attacks("looks beside twelve writers", looks)
    assert amidst > 0, "nobody looked while it happened"
    assert home.violations() == []
