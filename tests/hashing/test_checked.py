"""Kernels that a compiler got wrong are found out before a digest of theirs is believed."""

import os
import shutil
from pathlib import Path

import pytest
from blake3 import blake3

from compute_market.hashing.device import DeviceError
from compute_market.hashing.pipeline import DeviceBackend
from tests.support.cli import without
from tests.support.gpu.host import KERNELS, HostDriver

# What breaks one form of the kernels and leaves the others right.
MISCOMPILED = {
    (8, 1): ("(u32)bytes[4 * i + 3] << 24", "(u32)bytes[4 * i + 3] << 23"),
    (8, 4): ("for (u32 i = 0; i < 16; i++) m[i] = from[i];", "m[0] = from[1];"),
    (16, 16): ("#define PARENT 4u", "#define PARENT (TILE == 16 ? 2u : 4u)"),
}


@pytest.mark.parametrize("form", MISCOMPILED)
def test_kernels_that_compute_wrong_digests_are_not_used(
    form: tuple[int, int], tmp_path: Path
) -> None:
    if reason := without("g++"):
        pytest.skip(reason)
    tile, align = form
    sources = tmp_path / "sources"
    shutil.copytree(KERNELS, sources)
    right, wrong = MISCOMPILED[form]
    text = (sources / "blake3.cu").read_text()
    assert right in text
    (sources / "blake3.cu").write_text(text.replace(right, wrong))
    backend = DeviceBackend(HostDriver(tmp_path, sources=sources), 2)
    backend.start()
    data = os.urandom(300_000)
    digests = blake3(data[:5]).digest() + blake3(data[16:9016]).digest()
    assert backend.hash_batch(data, [0, 16], [5, 9000]) == digests
    length = 9000 if tile == 8 else len(data) - align
    with pytest.raises(DeviceError, match=f"tiles of {tile} and alignment {align}$"):
        backend.hash_batch(data, [align], [length])
    backend.close()
