"""What is stored of a machine: read back as it was, or refused in one line."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compute_market.errors import UsageError
from compute_market.hashing.calibration import (
    VERSION,
    Calibration,
    CpuRates,
    DeviceRates,
    decode,
    encode,
    machine,
)

HERE = "a processor, 4 cores"
COUNTS = st.integers(1, 2**63 - 1)
TIMES = st.integers(0, 2**63 - 1)


def rates(kind: Any, **others: Any) -> Any:
    """Rates with any numbers that may be."""
    numbers = {
        name: TIMES if name.endswith("_ns") else COUNTS
        for name in kind.__struct_fields__
        if name not in others
    }
    return st.builds(kind, **numbers, **others)


CALIBRATIONS = st.builds(
    Calibration,
    version=st.just(VERSION),
    machine=st.just(HERE),
    measured_at=st.integers(0, 2**40),
    cpu=rates(CpuRates),
    device=st.none()
    | rates(
        DeviceRates,
        backend=st.sampled_from(["cuda", "opencl"]),
        devices=st.lists(st.text(st.characters(codec="utf-8"))),
        pinned_bytes_per_s=st.none() | COUNTS,
    ),
)

EXAMPLE = Calibration(
    VERSION,
    HERE,
    1_800_000_000,
    CpuRates(4, 7_900_000_000, 15_000_000_000, 12_000_000_000, 400),
    DeviceRates(
        *("cuda", ["A GPU"], 60_000, 1_700_000_000_000, 30_000, 55_000_000_000),
        *(52_000_000_000, 14_000_000_000, 30_000_000_000, 14_000_000_000, 35_000_000_000),
        *(80_000, 8, 400_000_000),
    ),
)


@given(CALIBRATIONS)
def test_decode_gives_back_what_was_encoded(calibration: Calibration) -> None:
    content = encode(calibration)
    assert content.endswith(b"}\n")
    assert decode(content, "file", HERE) == calibration


@given(CALIBRATIONS, st.integers(1, 2**40), st.integers(1, 10**6))
def test_costs_are_whole_and_never_negative(
    calibration: Calibration, length: int, count: int
) -> None:
    costs = [calibration.cpu_batch_ns(count, length), calibration.cpu_file_ns(length)]
    costs.append(calibration.cpu_each_file_ns(length, count))
    if calibration.device is not None:
        costs += [
            calibration.device_batch_ns(count, length),
            calibration.device_file_ns(length),
            calibration.device_each_file_ns(length, count),
            calibration.cpu_resident_ns(length),
            calibration.device_resident_ns(length),
        ]
    assert all(type(cost) is int and cost >= 0 for cost in costs)


def test_costs_of_a_device_grow_steadily_from_the_first_segment_on() -> None:
    """A slice of one segment is staged, copied and hashed one after another: 14 GB/s here."""
    segment = 16 * 2**20
    for cost, rate in (
        (lambda length: EXAMPLE.device_batch_ns(1, length), 30),
        (EXAMPLE.device_file_ns, 35),
    ):
        assert cost(segment) == 80_000 + segment // 14 + (rate == 30) * 8
        assert abs(cost(4 * segment) - cost(segment) - 3 * segment // rate) <= 1


def test_costs_of_many_files_are_shared() -> None:
    """By threads until memory is the limit, and by those that go to the device together."""
    mib = 2**20
    alone = EXAMPLE.cpu_each_file_ns(mib, 1)
    assert alone == 400 + mib * 10 // 79
    assert EXAMPLE.cpu_each_file_ns(mib, 2) == EXAMPLE.cpu_each_file_ns(mib, 64) == mib // 15
    assert EXAMPLE.cpu_each_file_ns(100, 4) == EXAMPLE.cpu_each_file_ns(100, 64) == 412 // 4
    assert EXAMPLE.device_each_file_ns(mib, 16) == 5000 + 8 + mib // 35


def test_encoded_calibration_is_text_for_people() -> None:
    content = encode(EXAMPLE).decode()
    assert content.startswith('{\n  "version": 1,\n  "machine": "a processor, 4 cores",\n')
    assert json.loads(content)["device"]["start_ns"] == 400_000_000


def damaged(path: str, value: Any) -> bytes:
    """The example with a field replaced, or removed."""
    document: Any = json.loads(encode(EXAMPLE))
    *parents, name = path.split(".")
    part = document
    for parent in parents:
        part = part[parent]
    if value is ...:
        del part[name]
    else:
        part[name] = value
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "no JSON: it ends too early"),
        (encode(EXAMPLE)[:-3], "no JSON: it ends too early"),
        (encode(EXAMPLE)[:100], "no JSON: it ends too early"),
        (encode(EXAMPLE) + b"x", "trailing"),
        (b"\0" * 100, "no JSON: invalid character (byte 0)"),
        (b"\xff\xfe", "no JSON: "),
        (b'"\xff"', ""),
        (b"[" * 100_000, ""),
        (b"[]", "not a calibration: expected an object, got a list"),
        (b"null", "not a calibration: expected an object, got null"),
        (b"{}", "not a calibration: version is missing"),
        (damaged("cpu", ...), "not a calibration: cpu is missing"),
        (damaged("cpu", None), "cpu: expected an object, got null"),
        (damaged("cpu.slice_ns", ...), "cpu.slice_ns is missing"),
        (damaged("cpu.threads", "4"), "cpu.threads: expected a whole number, got text"),
        (damaged("cpu.threads", 4.5), "cpu.threads: expected a whole number, got a number with"),
        (damaged("cpu.threads", True), "cpu.threads: expected a whole number, got true or false"),
        (damaged("cpu.threads", 0), "threads is 0"),
        (damaged("cpu.file_bytes_per_s", 0), "file_bytes_per_s is 0"),
        (damaged("cpu.file_bytes_per_s", -1), "file_bytes_per_s is -1"),
        (damaged("cpu.slice_ns", -1), "slice_ns is -1"),
        (damaged("cpu.slice_ns", 2**63), "slice_ns is 9223372036854775808"),
        (damaged("cpu.slice_ns", 10**30), ""),
        (damaged("cpu.more", 1), "cpu: unknown field more"),
        (damaged("device.launch_ns", -5), "launch_ns is -5"),
        (damaged("device.pinned_bytes_per_s", 0), "pinned_bytes_per_s is 0"),
        (damaged("device.devices", "A GPU"), "device.devices: expected a list, got text"),
        (damaged("device.backend", "cpu"), "cpu"),
        (damaged("version", VERSION + 1), f"version {VERSION + 1}, not {VERSION}"),
        (damaged("version", 0), f"version 0, not {VERSION}"),
        (damaged("machine", "other\n\x1b[31m"), "made on another machine"),
        (b'{"version": 2, "other": "fields"}', "version 2, not 1"),
    ],
)
def test_decode_refuses_in_one_line_what_it_cannot_use(content: bytes, what: str) -> None:
    with pytest.raises(UsageError) as found:
        decode(content, "/home/calibration.json", HERE)
    assert found.value.message.startswith("/home/calibration.json: ")
    assert what.lower() in found.value.message.lower()
    assert found.value.message.isprintable()
    assert len(found.value.message) < 300
    assert found.value.hint == "`tb-cli compute calibrate` measures this machine"


@given(st.binary() | st.integers(0, 600).map(lambda length: encode(EXAMPLE)[:length]))
def test_decode_never_fails_in_another_way(content: bytes) -> None:
    with pytest.raises(UsageError):
        decode(content, "file", HERE)


@given(st.integers(0, len(encode(EXAMPLE)) - 1), st.binary(min_size=1, max_size=1))
def test_decode_of_a_flipped_byte_is_refused_or_valid(place: int, byte: bytes) -> None:
    content = encode(EXAMPLE)
    try:
        found = decode(content[:place] + byte + content[place + 1 :], "file", HERE)
    except UsageError:
        return
    assert (found.version, found.machine) == (VERSION, HERE)


def test_machine_names_the_processor_the_cores_and_the_hasher() -> None:
    assert machine() == machine()
    assert " cores, blake3 " in machine()
    assert machine().isprintable()
