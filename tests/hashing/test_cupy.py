"""The real CuPy, where it is installed, without a GPU: it compiles the kernels and takes the calls.

What is made up in `tests.support.gpu.fake_cupy` cannot be wrong about these.
"""

import itertools
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compute_market.hashing import cuda, forms
from compute_market.hashing.probe import cuda_missing
from tests.support.cli import without
from tests.support.effort import sample
from tests.support.gpu import fake_cupy
from tests.support.gpu.fake_gpus import Gpus

pytest_plugins = ("tests.support.gpu.fake_cupy",)

ROOT = Path(__file__).parents[2]
ARCHITECTURES = (75, 80, 86, 89, 90, 100, 103, 120, 121)
# What a GPU gets, what it may be asked to try, and every tile and alignment.
EVERY_FORM = [
    (architecture, form.options(tile, align))
    for architecture in ARCHITECTURES
    for form in dict.fromkeys(
        [
            forms.form_for(architecture),
            *(
                forms.Form(forms.TILES, multiply_add, read_ahead, l2_bytes)
                for multiply_add, read_ahead, l2_bytes in itertools.product(
                    (False, True), (False, True), (0, 128)
                )
            ),
        ]
    )
    for tile, align in itertools.product(forms.TILES, (16, 4, 1))
    if align == 16 or not form.l2_bytes
]
# In the assembly language there is no difference between a pointer and a number of its width.
TYPES = {np.uint64: "u64", np.uint32: "u32", np.float32: "f32"}


@pytest.fixture(scope="module")
def calls(
    kernel_directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[tuple[Any, ...], dict[str, Any]]]:
    """Every call that the backend makes of CuPy, with arguments."""
    with pytest.MonkeyPatch.context() as patch:
        gpus = Gpus(kernel_directory)
        modules: dict[str, Any] = {}
        fake_cupy.install(gpus, modules)
        for name, module in modules.items():
            patch.setitem(sys.modules, name, module)
        patch.setattr("compute_market.hashing.cuda.form_for", fake_cupy.small_form)
        backend = cuda.open_backend(lanes=1)
        backend.hash_batch(bytes(9000), [0, 8000], [8000, 7])
        backend.hash_array(backend.driver.to_device(np.zeros(5000, np.uint8)))
        array = gpus.array(bytes(3000), 0, gpus.legacy_streams[0])
        array._stream = 1
        backend.hash_array(array)
        backend.driver.pinned(100)
        backend.first_lane.multiply_add(1, 1)
        backend.close()
    return gpus.cupy_calls


@pytest.fixture(scope="module")
def told(calls: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the real CuPy says, in a process of its own, which knows of no CUDA toolkit."""
    if reason := without("python:cupy"):
        pytest.skip(reason)
    path = tmp_path_factory.mktemp("cupy") / "job"
    form = forms.form_for(90)
    job = {
        "calls": calls,
        # Of the first the kernels' parameters are asked for as well.
        "forms": sample(EVERY_FORM, 2),
        "signature": form.options(256, 16),
    }
    path.write_bytes(pickle.dumps(job))
    hidden = {"CUDA_PATH", "CUDA_HOME", "CUDA_VISIBLE_DEVICES"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.gpu.real_cupy", str(path)],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name not in hidden}
        | {"CUPY_CACHE_DIR": str(path.parent)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_cupy_compiles_every_form(told: dict[str, Any]) -> None:
    count = len(sample(EVERY_FORM, 2))
    assert told["kept"] == count
    # It stops where the code would go to a device.
    if cuda_missing() is not None:
        assert told["errors"] == [NO_DRIVER] * count


def test_cupy_finds_headers_in_the_extra(told: dict[str, Any]) -> None:
    """And not in a CUDA toolkit, which a user need not have."""
    runtime = [place for place in told["headers"] if "cupy" not in place]
    assert runtime
    assert all(Path(place).is_relative_to(sys.prefix) for place in runtime)


NO_DRIVER = (
    "CUDARuntimeError 35: cudaErrorInsufficientDriver: "
    "CUDA driver version is insufficient for CUDA runtime version"
)


def test_cupy_takes_every_call(told: dict[str, Any]) -> None:
    """Each fails for want of a device, none because CuPy is called otherwise."""
    if cuda_missing() is None:
        pytest.skip("there is a device: the calls do not fail")
    assert len(told["calls"]) >= 18
    assert told["calls"] == dict.fromkeys(told["calls"], NO_DRIVER)


def test_kernels_are_given_what_they_take(told: dict[str, Any], calls: dict[str, Any]) -> None:
    for kernel in ("b3_tiles", "b3_fold", "b3_small"):
        (_, _, arguments), _ = calls[kernel]
        passed = [TYPES[type(argument)] for argument in arguments]
        assert told["parameters"][kernel] == passed, kernel
