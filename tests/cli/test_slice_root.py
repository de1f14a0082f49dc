"""Which files of the operator a job file can name, and where the names in it begin."""

import json
import os
from pathlib import Path

import pytest

from tests.support.cli import HELLO, Cli

pytest_plugins = ("tests.support.cli",)


def job(path: str | Path, job_id: str = "j1", **more: str) -> dict[str, object]:
    return {
        "job_id": job_id,
        "buyer": "alice",
        "workload": "transcode",
        "slices": [{"path": str(path)} | more],
        "max_price_per_unit": 100,
    }


@pytest.fixture
def root(cli: Cli) -> Path:
    """A directory that all slices have to be in, and an offer."""
    cli.post()
    directory = cli.directory / "slices"
    directory.mkdir()
    (cli.home / "config.toml").write_text(f'slice_root = "{directory}"\n')
    return directory


def submitted(cli: Cli, document: dict[str, object]) -> tuple[int, str]:
    done = cli("compute", "submit", "-", stdin=json.dumps(document))
    return done.code, done.err


def test_slice_in_the_root_is_taken_by_whatever_way(cli: Cli, root: Path) -> None:
    (root / "below").mkdir()
    (root / "below" / "a").write_bytes(b"hello")
    (root / "link").symlink_to("below/a")
    (cli.directory / "way").symlink_to(root)
    for number, path in enumerate(
        ("slices/below/a", root / "below" / ".." / "link", "way/link", "way/../slices/link")
    ):
        assert submitted(cli, job(path, f"j{number}")) == (0, "")
        assert cli.ok("compute", "execute", f"j{number}")
    assert cli.ok("compute", "run", cli.slice()) == f"{HELLO}  {cli.directory}/a.slice\n"


@pytest.mark.parametrize("more", [{}, {"reference": HELLO}], ids=["hashed", "with a reference"])
def test_slice_that_leads_out_of_the_root_is_refused(
    cli: Cli, root: Path, more: dict[str, str]
) -> None:
    outside = cli.slice()
    (cli.directory / "slices-too").mkdir()
    (cli.directory / "slices-too" / "a").write_bytes(b"hello")
    (root / "link").symlink_to(outside)
    (root / "up").symlink_to("..")
    for path in (
        outside,
        "a.slice",
        root / ".." / "a.slice",
        root / "link",
        root / "up" / "a.slice",
        cli.directory / "slices-too" / "a",
        cli.directory / "missing",
        root,
    ):
        code, err = submitted(cli, job(path, **more))
        assert code == 5, err
        told = f"{os.path.abspath(path)} is not in {root}, the slice_root\n"
        assert err.startswith(f"error[refused]: {told}")
        document = cli.directory / "job.json"
        document.write_text(json.dumps(job(path, **more)))
        assert cli("compute", "explain", document).code == 5
    assert cli("compute", "list").out == ""


def test_link_that_leads_elsewhere_by_now_is_not_executed(cli: Cli, root: Path) -> None:
    (root / "a").write_bytes(b"hello")
    assert submitted(cli, job(root / "a"))[0] == 0
    (root / "a").unlink()
    (root / "a").symlink_to(cli.slice())  # The same bytes, but not from where they may come.
    done = cli("compute", "execute", "j1")
    assert done.code == 5
    assert "the slice_root" in done.err
    assert cli.job()["slices_proven"] == 0


def test_slices_of_a_job_from_a_stream_begin_at_the_present_directory(cli: Cli) -> None:
    """Its own directory, `/dev/fd` for one, is where nobody keeps slices."""
    cli.post()
    cli.slice()
    for number in range(2):
        reader, writer = os.pipe()
        os.write(writer, json.dumps(job("a.slice", f"j{number}")).encode())
        os.close(writer)
        directory = ("/dev/fd", "/proc/self/fd")[number]
        cli.ok("compute", "submit", f"{directory}/{reader}")
        os.close(reader)
    text = json.dumps(job("a.slice", "j2"))
    assert cli.process("compute", "submit", "/dev/stdin", stdin=text).code == 0
    slices = {cli.document("compute", "slices", f"j{number}")[0]["path"] for number in range(3)}
    assert slices == {f"{cli.directory}/a.slice"}


def test_file_that_does_not_tell_its_length_is_named_as_such(cli: Cli) -> None:
    done = cli("compute", "run", "/proc/version")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error[usage]: /proc/version: does not tell its length\nhint: ")
