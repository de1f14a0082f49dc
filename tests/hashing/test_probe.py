"""Probing for CUDA says what is missing, and starts nothing."""

import sys

import pytest

from compute_market.hashing import probe
from tests.support.gpu.fake_cupy import Driver, loader
from tests.support.gpu.fake_gpus import Gpus

pytest_plugins = ("tests.support.gpu.fake_cupy",)


@pytest.mark.parametrize(
    ("driver", "what", "hint"),
    [
        (None, "no NVIDIA driver: libcuda.so.1 cannot be loaded", "install the driver"),
        (Driver(999), "does not start: cuInit returns 999", "nvidia-smi"),
        (Driver(100), "does not start: cuInit returns 100", "CUDA_VISIBLE_DEVICES"),
        (Driver(count=0), "the NVIDIA driver sees no GPU", "CUDA_VISIBLE_DEVICES"),
    ],
)
def test_probe_says_what_is_missing(
    driver: Driver | None, what: str, hint: str, gpus: Gpus
) -> None:
    missing = probe.cuda_missing(loader(driver))
    assert missing is not None
    assert what in missing.what
    assert hint in missing.hint
    assert gpus.calls.total() == 0


def test_probe_finds_what_is_there(gpus: Gpus, monkeypatch: pytest.MonkeyPatch) -> None:
    assert probe.cuda_missing(loader(Driver())) is None
    assert probe.cuda_missing() is None
    # How an import is forbidden.
    monkeypatch.setitem(sys.modules, "cupy", None)
    missing = probe.cuda_missing()
    assert missing == ("CuPy is not installed", probe.installing("gpu"))
