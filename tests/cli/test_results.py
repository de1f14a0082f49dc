"""Files of results: what was there is replaced at once, written through, or left alone."""

import errno
import os
import resource
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import Cli
from tests.support.owners import SOMEBODY, as_root, umask

pytest_plugins = ("tests.support.cli",)


def failed_to(cli: Cli, path: str | Path, *ids: str) -> tuple[int, str]:
    """Cancel what is not there, so that the file has something to tell; the code and stderr."""
    done = cli("compute", "cancel", *(ids or ("gone", "lost")), "--failed-to", path)
    return done.code, done.err


@pytest.fixture
def place(cli: Cli) -> Path:
    """A directory of its own, in which nothing but the result may be afterwards."""
    cli.active("a")
    directory = cli.directory / "place"
    directory.mkdir()
    return directory


@pytest.mark.parametrize("mask", [0, 0o022, 0o077])
def test_new_file_has_the_mode_of_its_kind_whatever_the_umask(
    cli: Cli, place: Path, mask: int
) -> None:
    with umask(mask):
        failed_to(cli, place / "left")
        cli.ok("metrics", "--textfile", place / "tb.prom")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in place.iterdir()}
    assert modes == {"left": 0o600, "tb.prom": 0o644}


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664])
def test_file_that_is_replaced_passes_on_its_mode(cli: Cli, place: Path, mode: int) -> None:
    for name in ("left", "tb.prom"):
        (place / name).write_text("old")
        (place / name).chmod(mode)
    failed_to(cli, place / "left")
    cli.ok("metrics", "--textfile", place / "tb.prom")
    assert {stat.S_IMODE(path.stat().st_mode) for path in place.iterdir()} == {mode}
    assert (place / "left").read_text() == "gone\nlost\n"


@as_root
def test_file_that_root_replaces_stays_its_owners(cli: Cli, place: Path) -> None:
    (place / "left").write_text("old")
    os.chown(place / "left", SOMEBODY, SOMEBODY)
    failed_to(cli, place / "left")
    status = (place / "left").stat()
    assert (status.st_uid, status.st_gid) == (SOMEBODY, SOMEBODY)
    assert (place / "left").read_text() == "gone\nlost\n"


def test_fifo_and_link_to_a_device_are_written_through(cli: Cli, place: Path) -> None:
    fifo, null = place / "fifo", place / "null"
    os.mkfifo(fifo)
    null.symlink_to("/dev/null")
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert failed_to(cli, fifo)[0] == 3
        assert os.read(reader, 100) == b"gone\nlost\n"
        cli.ok("metrics", "--textfile", fifo)
        assert os.read(reader, 7) == b"# HELP "
    finally:
        os.close(reader)
    assert failed_to(cli, null)[0] == 3
    cli.ok("metrics", "--textfile", null)
    assert stat.S_ISFIFO(fifo.lstat().st_mode)
    assert os.readlink(null) == "/dev/null"
    assert sorted(path.name for path in place.iterdir()) == ["fifo", "null"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a device")
def test_device_is_written_through_by_root(cli: Cli, place: Path) -> None:
    try:
        os.mknod(place / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        (place / "null").write_text("probe")
    except PermissionError:
        pytest.skip("no devices may be made here")
    assert failed_to(cli, place / "null")[0] == 3
    assert stat.S_ISCHR((place / "null").lstat().st_mode)


def test_pipe_of_a_shell_is_written_to(cli: Cli, place: Path) -> None:
    """As `>(…)` hands it over."""
    reader, writer = os.pipe()
    try:
        assert failed_to(cli, f"/dev/fd/{writer}")[0] == 3
        assert os.read(reader, 100) == b"gone\nlost\n"
    finally:
        os.close(reader)
        os.close(writer)


def test_stdout_that_leads_to_a_file_keeps_what_is_printed(cli: Cli, place: Path) -> None:
    out = place / "out"
    with out.open("wb") as file:
        command = ("compute", "cancel", "gone", "a", "--failed-to")
        assert cli.start(*command, "/dev/stdout", stdout=file).wait(30) == 7
        assert cli.start(*command, out, stdout=file).wait(30) == 7
    assert sorted(out.read_text().splitlines()) == sorted(
        2 * ["gone", "gone: job not found"] + ["cancelled job a", "a: job already cancelled"]
    )


def test_link_is_followed_to_its_end_and_stays(cli: Cli, place: Path) -> None:
    (place / "deep").mkdir()
    (place / "deep" / "file").write_text("old")
    (place / "next").symlink_to("deep/file")
    (place / "link").symlink_to("next")
    failed_to(cli, place / "link")
    assert (place / "deep" / "file").read_text() == "gone\nlost\n"
    assert (os.readlink(place / "link"), os.readlink(place / "next")) == ("next", "deep/file")
    (place / "dangling").symlink_to("deep/made")
    failed_to(cli, place / "dangling")
    assert (place / "deep" / "made").read_text() == "gone\nlost\n"


@as_root
def test_link_of_another_user_is_not_followed(cli: Cli, place: Path) -> None:
    victim = cli.slice()
    (place / "link").symlink_to(victim)
    os.chown(place / "link", SOMEBODY, SOMEBODY, follow_symlinks=False)
    for done in (
        cli("compute", "cancel", "a", "--failed-to", place / "link"),
        cli("metrics", "--textfile", place / "link"),
    ):
        told = f"error[usage]: {place}/link: is a link of another user\n"
        assert (done.code, done.out, done.err) == (2, "", told)
    assert victim.read_bytes() == b"hello"
    assert cli.states() == {"a": "active"}


def test_what_is_planted_at_the_temporary_name_is_left_alone(
    cli: Cli, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can know the name; one who guesses it gains nothing."""
    victim = cli.slice()
    monkeypatch.setattr(os, "urandom", bytes)
    (place / f".tb-{bytes(8).hex()}.tmp").symlink_to(victim)
    done = cli("metrics", "--textfile", place / "tb.prom")
    assert (done.code, done.out) == (2, "")
    assert victim.read_bytes() == b"hello"
    assert not (place / "tb.prom").exists()


def test_file_that_cannot_be_written_is_told_before_anything_is_done(cli: Cli, place: Path) -> None:
    os.mkfifo(place / "fifo")
    (place / "directory").mkdir()
    (place / "loop").symlink_to("loop")
    for path, says in (
        (place / "fifo", "nobody reads it"),
        (place / "directory", "is a directory"),
        (place / "loop", "too many levels of symbolic links"),
        (place / "missing" / "left", "no such file or directory"),
        (place / "fifo" / "left", "not a directory"),
        (place / ("x" * 300), "file name too long"),
        ("/proc/left", None),
    ):
        done = cli("compute", "cancel", "a", "--failed-to", path)
        assert (done.code, done.out) == (2, ""), done
        assert done.err.startswith(f"error[usage]: {path}: {says or ''}")
        assert cli("metrics", "--textfile", path).err == done.err
    assert cli.states() == {"a": "active"}
    assert sorted(path.name for path in place.iterdir()) == ["directory", "fifo", "loop"]


@pytest.mark.parametrize("words", [("metrics", "--textfile", "f"), ("state", "backup", "f")])
def test_file_beyond_the_limit_of_files_is_busy(
    cli: Cli, place: Path, words: tuple[str, ...]
) -> None:
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))

    done = cli.process(*words, cwd=place, afresh=True, preexec_fn=limited)
    assert (done.code, "file too large" in done.err, "`ulimit -f`" in done.err) == (8, True, True)
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "code"),
    [(errno.EMFILE, 8), (errno.EDQUOT, 8), (errno.EACCES, 2)],
    ids=errno.errorcode.get,
)
def test_error_of_the_file_system_has_one_code_wherever_it_is_met(
    cli: Cli, place: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    opened = os.open

    def failing(path: Any, *rest: Any, **named: Any) -> int:
        if "named" in str(path) or ".tmp" in str(path):
            raise OSError(number, os.strerror(number))
        return opened(path, *rest, **named)

    (place / "named").write_text("")
    monkeypatch.setattr(os, "open", failing)
    for words in (
        ("metrics", "--textfile", place / "result"),
        ("compute", "submit", place / "named"),
    ):
        done = cli(*words)
        assert (done.code, os.strerror(number).lower() in done.err) == (code, True), done


def test_failure_at_the_end_is_a_warning(cli: Cli, place: Path) -> None:
    code, err = failed_to(cli, "/dev/full", "gone", "a")
    assert code == 7
    assert "warning: /dev/full: no space left on device: what failed is not in it\n" in err
    assert cli.states() == {"a": "cancelled"}


def test_interrupted_command_leaves_no_temporary_file(
    cli: Cli, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from compute_market import exposition

    def interrupted(*_: object) -> str:
        assert [path.name[:4] for path in place.iterdir()] == [".tb-"]
        raise KeyboardInterrupt

    monkeypatch.setattr(exposition, "render", interrupted)
    assert cli("metrics", "--textfile", place / "tb.prom").code == 130
    assert list(place.iterdir()) == []


def test_file_without_a_name_is_refused_before_anything_is_done(cli: Cli) -> None:
    cli.active("a")
    assert cli("compute", "cancel", "a", "--failed-to", "").code == 2
    assert cli.states() == {"a": "active"}
