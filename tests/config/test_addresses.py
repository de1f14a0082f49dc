"""Addresses: what may be one, and that nothing else is ever stored or tried."""

import pytest

from compute_market.config import addresses, files
from compute_market.config.addresses import Url
from compute_market.errors import UsageError

BAD_URLS = (
    *("http://", "http:///path", "http://[::1", "http://[::1]x/", "http://[]/", "http://[::g]/"),
    *("http://a..b/", "http://.:1/", "http://./", "http://h\u2100x/", "http://-\\-/"),
    *(f"http://{'a' * 64}.example/", f"http://{'.'.join(['a' * 60] * 5)}/", "http://h:x/"),
    *("http://h:/", "http://h:0/", "http://h:65536/", "http://h:1234567/", "http://h:\u0661/"),
    *("http://h/#x", "http://h/ x", "http://h/\n", "ftp://h/", "h", "", "http://h%41/"),
)
SECRETS = (
    *("http://alice:secret@h/", "http://secret@h/", "https://a:secret@[::1]:1/x"),
    *("http://a:se/secret@h/", "http://a:secret @h/", "http://a:secret@@h/#x"),
)
OWN = ("market", "keys", "spool", "inbox", "bids", "config.toml", "reputation.json")


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("http://h", Url(False, "h", 80, "", "")),
        ("https://h.example.:1/p?q=1/2", Url(True, "h.example.", 1, "/p", "?q=1/2")),
        ("http://[fe80::1]:65535/", Url(False, "fe80::1", 65535, "/", "")),
        ("http://127.0.0.1?x", Url(False, "127.0.0.1", 80, "", "?x")),
        (f"http://{'a' * 63}/a@b", Url(False, "a" * 63, 80, "/a@b", "")),
    ],
)
def test_address_has_parts(url: str, parts: Url) -> None:
    assert addresses.parse(url) == parts


@pytest.mark.parametrize("url", BAD_URLS)
def test_what_no_host_can_be_asked_by_is_refused(url: str) -> None:
    with pytest.raises(UsageError):
        addresses.parse(url)
    with pytest.raises(UsageError):
        addresses.check_destination(url)
    for name in ("net.peers", "courier_dest"):
        refused_in_settings(name, url)


@pytest.mark.parametrize("url", SECRETS)
def test_secret_in_an_address_is_refused_and_not_told(url: str) -> None:
    told = [refused_in_settings(name, url) for name in ("net.peers", "courier_dest")]
    for check in (addresses.parse, addresses.check_destination):
        with pytest.raises(UsageError) as found:
            check(url)
        told.append(found.value)
    for error in told:
        assert "secret" not in f"{error.message} {error.hint}"


@pytest.mark.parametrize("path", ["../evil", "a/../b", ".", "a//b", "./a", "~/a", *OWN, "keys/a"])
def test_directory_that_is_no_other_one_in_the_home_is_refused(path: str) -> None:
    for given in (path, f"{path}/"):
        with pytest.raises(UsageError):
            addresses.check_destination(f"dir:{given}")
        refused_in_settings("courier_dest", f"dir:{given}")


@pytest.mark.parametrize("dest", ["dir:outbox", "dir:a/b/", "dir:/a/../b", "exec:a b", "dir:..."])
def test_destination_is_taken(dest: str) -> None:
    addresses.check_destination(dest)
    assert files.load(None, "f", {"TB_COURIER_DEST": dest})[0].courier_dest == dest


def refused_in_settings(name: str, text: str) -> UsageError:
    """What reading a file says, which must name the setting."""
    quoted = text.replace("\\", "\\\\").replace("\n", "\\n")
    key = name.removeprefix("net.")
    content = f'{key} = "{quoted}"' if key == name else f'[net]\n{key} = ["{quoted}"]'
    with pytest.raises(UsageError, match=rf"^f:[12]: {name}: ") as found:
        files.parse(content, "f")
    return found.value
