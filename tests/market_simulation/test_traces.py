"""Traces of other machines and the market's own log, as jobs and offers of a scenario."""

import gzip
import os
from collections import Counter
from decimal import Decimal
from pathlib import Path

import pytest

from compute_market.errors import MarketError, UsageError
from compute_market.requests import CapabilityRequest
from compute_market.simulation import openb, swf, traces
from compute_market.simulation.arrivals import slice_of
from compute_market.simulation.scenario import Arrivals, Buyers, Providers, Scenario
from compute_market.simulation.trace_jobs import arrivals
from compute_market.simulation.trace_lines import FILE_BYTES_MAX, LINE_BYTES_MAX, lines
from tests.support.effort import TRACES

HEADER = "; Version: 2.2\n; Computer: none\n\n"
TASKS = ",".join(openb.TASK_COLUMNS)
NODES = ",".join(openb.NODE_COLUMNS)
TASK = "t-1,2500,100,1,500,V100M16|T4,BE,Running,7,107,27"


def swf_line(**fields: str) -> str:
    """A line of a trace: what is not given is unknown."""
    names = [name.replace(" ", "_") for name in swf.FIELDS]
    assert set(fields) <= set(names)
    given = {"job_number": "1", "submit_time": "0"} | fields
    return " ".join(given.get(name, "-1") for name in names)


def trace(tmp_path: Path, content: str | bytes, name: str = "a.swf") -> str:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def refusal(path: str) -> MarketError:
    with pytest.raises(MarketError) as caught:
        traces.extent(path)
    assert caught.value.exit_code == 2
    return caught.value


def scenario_of(buyers: Buyers) -> Scenario:
    return Scenario(length_secs=1_000, providers=[Providers(name="p")], buyers=[buyers])


def buyers_of(path: str, **fields: object) -> Buyers:
    found = Arrivals(process="trace", file=path)
    return Buyers(name="b", arrivals=found, **fields)  # type: ignore[arg-type]


# The Standard Workload Format.


def test_read_swf_finds_what_a_job_asked_for_and_took(tmp_path: Path) -> None:
    ran = swf_line(submit_time="5", run_time="60", requested_processors="8", user_id="3")
    path = trace(tmp_path, f"{HEADER}{ran} ; a comment\n{ran.replace(' 5 ', ' 9 ')}\n")
    first, second = traces.jobs(path)
    assert (first.at_ms, first.units, first.duration_ms, first.user) == (5_000, 8, 60_000, "3")
    assert (first.number, second.number, second.at_ms) == (4, 5, 9_000)
    assert traces.extent(path) == traces.Extent(2, 70, 60, 9)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, (1, None, None, None)),  # nothing is known
        ({"allocated_processors": "4"}, (4, None, None, None)),
        ({"allocated_processors": "4", "requested_processors": "6"}, (6, None, None, None)),
        ({"requested_time": "50"}, (1, 50_000, None, None)),
        ({"requested_time": "50", "run_time": "20"}, (1, 20_000, None, None)),
        ({"run_time": "20.75"}, (1, 20_000, None, None)),
        ({"queue_number": "0"}, (1, None, None, "high")),
        ({"queue_number": "1"}, (1, None, None, None)),
        ({"status": "5", "wait_time": "9", "requested_time": "5"}, (1, 5_000, 9_000, None)),
        ({"status": "5", "run_time": "9"}, (1, 9_000, None, None)),  # while it ran
    ],
)
def test_read_swf_takes_what_is_known(
    tmp_path: Path, fields: dict[str, str], expected: tuple[object, ...]
) -> None:
    (job,) = traces.jobs(trace(tmp_path, swf_line(**fields)))
    assert (job.units, job.duration_ms, job.gives_up_ms, job.priority) == expected


def test_read_swf_leaves_out_parts_that_are_summed_up(tmp_path: Path) -> None:
    parts = [swf_line(status=status, run_time="1") for status in ("1", "2", "3", "4", "0")]
    assert [job.number for job in traces.jobs(trace(tmp_path, "\n".join(parts)))] == [1, 5]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("1 2 3", "3 fields, not 18"),
        (swf_line() + " 5", "19 fields, not 18"),
        (swf_line(run_time="soon"), "field 4: the run time is soon, not a number"),
        (swf_line(run_time="-2"), "field 4: the run time is -2, not a number"),
        (swf_line(run_time="1e3"), "field 4: the run time is 1e3, not a number"),
        (swf_line(run_time="nan"), "field 4: the run time is nan, not a number"),
        (swf_line(user_id="٣"), "field 12: the user id is ٣, not a number"),
        (swf_line(run_time="9" * 19), "field 4: the run time is above"),
        (swf_line(run_time="9" * 400), "field 4: the run time is 999"),
        (swf_line(submit_time="99999999999"), "field 2: the submit time is above"),
        (swf_line(submit_time="-1"), "field 2: the submit time is not known"),
        (
            swf_line(submit_time="4", requested_processors="9" * 13),
            "9999999999999 processors are more",
        ),
        (swf_line(submit_time="3"), "submit time 3 comes behind 4"),
    ],
)
def test_read_swf_names_file_and_line_of_what_is_wrong(
    tmp_path: Path, line: str, expected: str
) -> None:
    path = trace(tmp_path, f"{HEADER}{swf_line(submit_time='4')}\n{line}\n")
    error = refusal(path)
    assert error.message.startswith(f"{path}:5: {expected}")
    assert error.details == {"line": 5}
    assert len(error.message) < len(path) + 200


# CSV in the form of openb.


def test_read_openb_makes_jobs_of_tasks(tmp_path: Path) -> None:
    waiting = "t-2,1000,1,0,0,,LS,Pending,8,20,"
    path = trace(tmp_path, f"{TASKS}\n{TASK}\n{waiting}\n", "tasks.csv")
    first, second = traces.jobs(path)
    asked = CapabilityRequest(cpu_cores=3, gpu=["V100M16", "T4"], gpu_count=1)
    assert (first.at_ms, first.units, first.duration_ms) == (7_000, 3 * 80, 80_000)
    assert (first.priority, first.capability) == ("low", asked)
    assert (second.duration_ms, second.priority) == (12_000, "high")
    assert second.capability == CapabilityRequest(cpu_cores=1)


def test_read_openb_makes_offers_of_nodes(tmp_path: Path) -> None:
    content = f"{NODES}\nn-1,32000,262144,0,\nn-2,64999,1,8,G3\nn-3,999,1,0,\nn-4,1000,1,2,New\n"
    found = openb.nodes(trace(tmp_path, content, "nodes.csv"))
    assert [(each.name, each.units, each.price_per_unit) for each in found] == [
        ("n-1", 32 * openb.OFFER_SECS, 10),
        ("n-2", 64 * openb.OFFER_SECS, 90),
        ("n-4", openb.OFFER_SECS, 50),
    ]
    assert [each.units for each in openb.offering(found, 60)] == [32 * 60, 64 * 60, 60]
    assert openb.cores_of(found) == 97
    assert found[1].capability == CapabilityRequest(cpu_cores=64, gpu="G3", gpu_count=8)


def test_read_openb_takes_columns_in_any_order_and_quoted_fields(tmp_path: Path) -> None:
    rows = [line.split(",")[::-1] for line in (TASKS, TASK)]
    content = "\n".join(",".join(f'"{field}"' for field in row) for row in rows)
    (turned,) = traces.jobs(trace(tmp_path, content, "a.csv"))
    assert [turned] == list(traces.jobs(trace(tmp_path, f"{TASKS}\n{TASK}", "b.csv")))


@pytest.mark.parametrize(
    ("content", "number", "expected"),
    [
        (f"{TASKS},more\n", 1, "the column more is unknown"),
        (f"{TASKS[:-5]}\n", 1, "the column scheduled_time is missing"),
        (f"{TASKS},name\n", 1, "a column is there twice"),
        (f"{TASK}\n", 1, "the column name is missing"),
        (f"{TASKS}\n{TASK},1\n", 2, "12 fields, not 11"),
        (f"{TASKS}\n\n{TASK[:-3]}\n", 3, "10 fields, not 11"),
        (f"{TASKS}\n{TASK.replace('2500', '-1')}", 2, "cpu_milli is -1, not a whole number"),
        (f"{TASKS}\n{TASK.replace('2500', '')}", 2, "cpu_milli is nothing, not a whole number"),
        (f"{TASKS}\n{TASK.replace('2500', '²')}", 2, "cpu_milli is ², not a whole number"),
        (f"{TASKS}\n{TASK.replace('2500', '9' * 15)}", 2, "cpu_milli 999999999999999 is above"),
        (f"{TASKS}\n{TASK}\n{TASK.replace(',7,', ',6,')}", 3, "creation_time 6 comes behind 7"),
        (f"{TASKS}\n{TASK.replace('T4', 'T' * 65)}", 2, "TTTT"),
        (f"{TASKS}\n{TASK.replace('T4', '|'.join(map(str, range(40))))}", 2, "gpu_spec names more"),
    ],
)
def test_read_openb_names_file_and_line_of_what_is_wrong(
    tmp_path: Path, content: str, number: int, expected: str
) -> None:
    path = trace(tmp_path, content, "a.csv")
    assert refusal(path).message.startswith(f"{path}:{number}: {expected}")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (",1000,1,0,", "sn nothing is no name"),
        ("a b,1000,1,0,", "sn a b is no name"),
        ("-a,1000,1,0,", "sn -a is no name"),
        ("n-1,1000,1,0,", "sn n-1 is there already"),
        (f"{'n' * 61},1000,1,0,", "sn nnnn"),
        ("n-2,1000,1,2,", "nothing is no model of a GPU"),
        ("n-2,x,1,2,T4", "cpu_milli is x"),
    ],
)
def test_read_nodes_names_file_and_line_of_what_is_wrong(
    tmp_path: Path, line: str, expected: str
) -> None:
    path = trace(tmp_path, f"{NODES}\nn-1,1000,1,0,\n{line}\n", "nodes.csv")
    with pytest.raises(UsageError) as caught:
        openb.nodes(path)
    assert caught.value.message.startswith(f"{path}:3: {expected}")


# Files of every kind.


@pytest.mark.parametrize("line_break", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("packed", [False, True])
def test_read_is_the_same_whatever_wraps_the_text(
    tmp_path: Path, line_break: str, mark: bytes, packed: bool
) -> None:
    content = f"{TASKS}\n\n{TASK}\n"
    plain = trace(tmp_path, content, "plain.csv")
    wrapped = mark + content.replace("\n", line_break).encode()
    path = trace(tmp_path, gzip.compress(wrapped) if packed else wrapped, "a.csv")
    assert list(traces.jobs(path)) == list(traces.jobs(plain))


def test_read_gzip_of_several_members_and_padding(tmp_path: Path) -> None:
    members = [gzip.compress(f"{swf_line(submit_time=str(at))}\n".encode()) for at in range(3)]
    path = trace(tmp_path, b"".join(members) + bytes(512), "a.swf.gz")
    assert [job.at_ms for job in traces.jobs(path)] == [0, 1_000, 2_000]


def test_read_gzip_cut_anywhere_says_so(tmp_path: Path) -> None:
    whole = gzip.compress(f"{swf_line()}\n".encode())
    for length in range(3, len(whole)):
        message = refusal(trace(tmp_path, whole[:length], "a.swf.gz")).message
        assert "cut off" in message or "there is no job" in message


def test_read_damaged_gzip_says_so(tmp_path: Path) -> None:
    whole = bytearray(gzip.compress(f"{swf_line()}\n".encode()))
    whole[-5] ^= 1  # The checksum.
    assert "the compressed data is damaged" in refusal(trace(tmp_path, bytes(whole))).message


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", ": there is no job in it"),
        (b"\n\r\n  \n", ": there is no job in it"),
        (HEADER.encode(), ": there is no job in it"),
        (b"1 2\n\0\n", ":1: 2 fields"),
        (b"\n\0\n", ":2: there is a NUL byte in it"),
        (b";\n;\xff\n", ":2: byte 2 is not UTF-8"),
        (b"BZh91AY&SY", ": is compressed with bzip2"),
        (b"\x1f\x8b", ": the compressed data is cut off"),
        (b"\x1f\x8bnothing of the kind", ": the compressed data is damaged"),
        (b";\n" + b"1 " * LINE_BYTES_MAX, f":2: the line has more than {LINE_BYTES_MAX} bytes"),
    ],
)
def test_read_what_is_no_trace_says_where(tmp_path: Path, content: bytes, expected: str) -> None:
    path = trace(tmp_path, content)
    assert refusal(path).message.startswith(f"{path}{expected}")


def test_read_empty_csv_and_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert refusal(trace(tmp_path, "", "a.csv")).message.endswith("a.csv: is empty")
    assert "is a directory" in refusal(trace_directory(tmp_path)).message
    assert "no such file" in refusal(str(tmp_path / "none.swf")).message
    assert "the name does not say" in refusal(trace(tmp_path, "", "trace")).message
    assert refusal("a\0.swf").message


def trace_directory(tmp_path: Path) -> str:
    path = tmp_path / "directory.swf"
    path.mkdir()
    return str(path)


def test_read_endless_line_and_endless_text_ends_soon(tmp_path: Path) -> None:
    sparse = tmp_path / "sparse.swf"
    sparse.touch()
    os.truncate(sparse, 10 * 10**9)
    assert "the line has more than" in refusal(str(sparse)).message
    # A small file that decompresses to more than memory holds, in one line.
    packed = trace(tmp_path, gzip.compress(b"1" * 2**24, 9) * 64, "bomb.swf.gz")
    assert f":1: the line has more than {LINE_BYTES_MAX}" in refusal(packed).message


def test_read_text_without_end_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert FILE_BYTES_MAX < 10 * 10**9
    monkeypatch.setattr("compute_market.simulation.trace_lines.FILE_BYTES_MAX", 2**20)
    path = trace(
        tmp_path, gzip.compress(b"; a comment of a header that goes on\n" * 2**15), "a.swf.gz"
    )
    assert "has more than 1048576 bytes of text" in refusal(path).message


def test_lines_are_whole_wherever_a_chunk_ends(tmp_path: Path) -> None:
    content = "".join(f"{'x' * (number % 977)}y\n" for number in range(2_000))
    path = trace(tmp_path, content)
    assert [text for _, text in lines(path)] == content.splitlines()
    assert [number for number, _ in lines(path)] == list(range(1, 2_001))


# What a group of buyers makes of a trace.


def test_open_trace_takes_from_the_group_what_the_trace_leaves_open(tmp_path: Path) -> None:
    content = "\n".join(
        (
            swf_line(submit_time="1", user_id="7", run_time="10", requested_processors="2"),
            swf_line(submit_time="2", queue_number="0"),
            swf_line(submit_time="3"),
            swf_line(submit_time="999"),
        )
    )
    path = trace(tmp_path, content)
    group = buyers_of(
        Path(path).name, count=2, priority="low", waits=True, gives_up_secs=30, deadline_secs=50
    )
    scenario = scenario_of(group)
    group = scenario.buyers[0]
    first, second, third, _ = traces.opener(str(tmp_path))(scenario, group)
    assert [each.request.job_id for each in (first, second, third)] == ["b:1", "b:2", "b:3"]
    assert [each.request.buyer for each in (first, second, third)] == ["b-7", "b-2", "b-1"]
    assert [each.request.priority for each in (first, second)] == ["low", "high"]
    assert first.slices == [slice_of(2)]
    assert first.at_ms == scenario.start_ms + 1_000
    assert first.duration_ms == 10_000
    assert (first.request.deadline_secs, second.request.deadline_secs) == (60, 50)
    assert (first.waits, first.gives_up_ms, first.ct) == (True, 30_000, group.ct)


def test_open_trace_begins_and_ends_when_the_group_does(tmp_path: Path) -> None:
    content = "\n".join(swf_line(submit_time=str(at)) for at in range(0, 1_000, 100))
    path = trace(tmp_path, content)
    found = Arrivals(process="trace", file=path, from_secs=500, until_secs=800)
    scenario = scenario_of(Buyers(name="b", arrivals=found))
    opened = traces.opener(str(tmp_path))(scenario, scenario.buyers[0])
    assert [(each.at_ms - scenario.start_ms) // 1_000 for each in opened] == [500, 600, 700]


def test_open_trace_tells_what_is_wrong_before_its_first_job(tmp_path: Path) -> None:
    path = trace(tmp_path, f"{swf_line()}\n" * 3 + "end\n")
    scenario = scenario_of(buyers_of(path))
    with pytest.raises(UsageError, match=":4: 1 field"):
        traces.opener(str(tmp_path))(scenario, scenario.buyers[0])


def test_openb_of_the_public_data_set_is_read_whole() -> None:
    folder = TRACES
    if not folder:
        pytest.skip("TB_TRACES does not name a folder with the trace")
    nodes = openb.nodes(f"{folder}/openb_node_list_all_node.csv")
    tasks = f"{folder}/openb_pod_list_default.csv"
    assert len(nodes) == 1_523
    assert traces.extent(tasks).jobs == 8_152
    counted = Counter(job.priority for job in traces.jobs(tasks))
    assert counted == {"high": 4_654, "low": 3_398, "normal": 100}
    group = Buyers(name="b", arrivals=Arrivals(process="trace", file=tasks))
    scenario = Scenario(length_secs=14_000_000, providers=nodes, buyers=[group])
    ids = {each.request.job_id for each in arrivals(scenario, group, traces.jobs(tasks))}
    assert len(ids) == 8_152
    assert nodes[0].reliability == Decimal(1)
