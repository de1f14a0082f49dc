"""liboqs as what verifies: found without a word, never installed, and judging as the other does."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from compute_market.errors import IntegrityError
from compute_market.signatures import liboqs, pyca, signatures
from compute_market.signatures.signatures import BID_COMMIT, BID_REVEAL
from tests.signatures.test_signatures import ACVP, MESSAGE, PUBLIC_KEY, SEED, flipped, of_nist
from tests.support.cli import Cli, missing, without

pytest_plugins = ("tests.support.cli",)

FAKE = Path(__file__).parents[1] / "support" / "fake_oqs"
VERSION = (sys.executable, "-m", "tb_cli.entry", "--version", "--json")


class Fake:
    """A machine on which importing `oqs` finds a stand-in, and the library if it `is_there`."""

    def __init__(self, directory: Path, found: str, *, is_there: bool = True) -> None:
        self._log = directory / "oqs.log"
        installed = directory / "installed"
        if is_there:
            (installed / "lib").mkdir(parents=True)
            (installed / "lib" / "liboqs.so").write_text("no library")
        self.variables = {
            "FAKE_OQS": found,
            "FAKE_OQS_LOG": str(self._log),
            "OQS_INSTALL_PATH": str(installed),
            "HOME": str(directory),
        }

    def log(self) -> list[str]:
        return self._log.read_text().splitlines() if self._log.exists() else []

    def backends(self) -> dict[str, Any]:
        """What `tb-cli --version --json` says, which is all that is printed."""
        path = os.pathsep.join((str(FAKE), os.environ["PYTHONPATH"]))
        done = subprocess.run(
            VERSION,
            env=os.environ | self.variables | {"PYTHONPATH": path},
            capture_output=True,
            timeout=60,
        )
        assert (done.returncode, done.stderr) == (0, b"")
        found: dict[str, Any] = json.loads(done.stdout)
        return found


def test_library_that_is_there_verifies(cli: Cli) -> None:
    fake = Fake(cli.directory, "works")
    found = fake.backends()
    assert list(found)[:3] == ["version", "signing_backend", "verifying_backend"]
    assert (found["signing_backend"], found["verifying_backend"]) == ("cryptography", "liboqs")
    assert fake.log() == ["imported"]


def test_without_the_library_nothing_is_imported(cli: Cli) -> None:
    if liboqs.is_there({}):
        pytest.skip("liboqs is installed where the loader finds it")
    fake = Fake(cli.directory, "absent", is_there=False)
    assert fake.backends()["verifying_backend"] == "cryptography"
    assert fake.log() == []


@pytest.mark.parametrize("found", ["broken", "exits", "old", "release", "strange", "moody"])
def test_library_that_is_of_no_use_is_left_alone(cli: Cli, found: str) -> None:
    fake = Fake(cli.directory, found)
    assert fake.backends()["verifying_backend"] == "cryptography"
    assert fake.log() == ["imported"], "it was to be installed"


def test_library_in_the_home_of_the_user_is_found(tmp_path: Path) -> None:
    assert not any(map(os.path.exists, liboqs._places({"HOME": str(tmp_path)})))
    (tmp_path / "_oqs" / "lib64").mkdir(parents=True)
    (tmp_path / "_oqs" / "lib64" / "liboqs.so").touch()
    assert liboqs.is_there({"HOME": str(tmp_path)})
    assert list(liboqs._places({})) == []


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    """This process has loaded it."""
    fake = Fake(tmp_path, "works")
    monkeypatch.syspath_prepend(FAKE)
    for name, value in fake.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delitem(sys.modules, "oqs", raising=False)
    monkeypatch.setenv("PYOQS_VERSION", "1.2.3")
    assert liboqs.load(os.environ)
    assert os.environ["PYOQS_VERSION"] == "1.2.3"
    yield fake
    del sys.modules["oqs"]


def test_loaded_library_is_what_verifies(loaded: Fake) -> None:
    assert liboqs.load({}), "it is loaded once"
    assert signatures.verifying_backend() == "liboqs"
    signature = signatures.sign(SEED, MESSAGE, BID_COMMIT)
    signatures.verify(PUBLIC_KEY, signature, MESSAGE, BID_COMMIT, "it")
    for wrong, purpose in ((flipped(signature, 7), BID_COMMIT), (signature, BID_REVEAL)):
        with pytest.raises(IntegrityError, match="the signature is not that of key"):
            signatures.verify(PUBLIC_KEY, wrong, MESSAGE, purpose, "it")  # type: ignore[arg-type]
    assert loaded.log() == ["imported", *["verified", "freed"] * 3]


def test_library_that_fails_leaves_it_to_the_other(
    loaded: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    signature = signatures.sign(SEED, MESSAGE, BID_COMMIT)
    for name, of_no_use in (("_found", "failing"), ("_found", "moody"), ("Signature", None)):
        monkeypatch.setattr(sys.modules["oqs"], name, of_no_use)
        signatures.verify(PUBLIC_KEY, signature, MESSAGE, BID_COMMIT, "it")
        with pytest.raises(IntegrityError, match="the signature is not that of key"):
            signatures.verify(PUBLIC_KEY, flipped(signature, 7), MESSAGE, BID_COMMIT, "it")
    assert "verified" not in loaded.log()


def test_another_package_of_that_name_is_not_taken_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "oqs", json)
    assert liboqs.loaded() is None
    assert signatures.verifying_backend() == "cryptography"


@pytest.fixture
def real() -> Iterator[None]:
    """This process has loaded the real one."""
    reason = without("python:oqs")
    if reason is None and not liboqs.load(os.environ):
        reason = missing("liboqs", "no usable liboqs library")
    if reason is not None:
        pytest.skip(reason)
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "oqs"]:
        del sys.modules[name]


@pytest.mark.usefixtures("real")
@pytest.mark.parametrize("case", ACVP["sigVer"], ids=lambda case: case["tcId"])
def test_real_library_judges_as_nist(case: dict[str, Any]) -> None:
    assert liboqs.verify(*of_nist(case)) == case["testPassed"]


@pytest.mark.usefixtures("real")
def test_real_library_verifies_what_is_signed_and_signs_what_verifies() -> None:
    import oqs

    context = BID_COMMIT.encode()
    assert liboqs.verify(PUBLIC_KEY, pyca.sign(SEED, MESSAGE, context), MESSAGE, context)
    with oqs.Signature("ML-DSA-65") as signer:
        public_key = signer.generate_keypair()
        signature = signer.sign_with_ctx_str(MESSAGE, context)
    assert pyca.verify(public_key, signature, MESSAGE, context)
    assert not pyca.verify(public_key, signature, MESSAGE, b"another")
