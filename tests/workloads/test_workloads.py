"""The registry of workloads."""

from types import ModuleType

import pytest

from compute_market.errors import UsageError
from compute_market.workloads.workloads import BUILT_IN, calibrate_gpu, resolve


def test_resolve_knows_the_built_in_workloads_and_no_package_can_take_their_names(
    plugin: ModuleType,
) -> None:
    assert resolve("transcode") is BUILT_IN["transcode"]
    assert set(BUILT_IN) == {"transcode", "inference", "gpu_hash"}


def test_resolve_finds_what_a_package_registers(plugin: ModuleType) -> None:
    with open("/dev/null", "rb") as file:
        assert resolve("count")("a path", file.fileno(), 3) == bytes(32).replace(b"\0", b" ")
    assert plugin.calls == ["a path"]


def test_resolve_refuses_an_unknown_name_and_lists_the_known_ones(plugin: ModuleType) -> None:
    with pytest.raises(UsageError) as error:
        resolve("transcoding")
    assert error.value.reason == "unknown_workload"
    assert error.value.message == (
        "unknown workload 'transcoding': known are absent, count, faulty, gpu_hash, inference, "
        "leaving, meddle, meet, short_proof, slow, stopped, text, transcode, unimportable, wordy, "
        "zeros"
    )


@pytest.mark.parametrize("name", ["absent", "unimportable", "text"])
def test_resolve_refuses_a_workload_that_cannot_be_loaded(name: str, plugin: ModuleType) -> None:
    with pytest.raises(UsageError, match=f"workload '{name}' cannot be loaded from") as error:
        resolve(name)
    assert error.value.reason == "broken_workload"


def test_a_gflops_is_a_unit_per_second() -> None:
    assert [calibrate_gpu(gflops) for gflops in (1, 2, 67_000, 10**12)] == [1, 2, 67_000, 10**12]
    for wrong in (0, -1):
        with pytest.raises(UsageError, match=f"a rating of {wrong} GFLOPS: at least 1"):
            calibrate_gpu(wrong)
