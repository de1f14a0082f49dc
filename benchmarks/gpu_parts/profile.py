"""What ncu counts while 1 GiB on the device is hashed, for each launch."""

import shutil

from gpu_parts.bench import Bench
from gpu_parts.checkers import ended, watched
from gpu_parts.record import Record, Skip

# Pipes, what each of the four sub-partitions did, why warps waited, and the caches.
METRICS = (
    "gpu__time_duration.sum",
    "sm__inst_executed_pipe_alu.avg.pct_of_peak_sustained_active",
    "sm__inst_executed_pipe_fmaheavy.avg.pct_of_peak_sustained_active",
    "sm__inst_issued.avg.pct_of_peak_sustained_active",
    "sm__warps_active.avg.pct_of_peak_sustained_active",
    "smsp__inst_executed.sum",
    "smsp__inst_executed.max",
    "smsp__inst_executed.avg",
    *(
        f"smsp__average_warps_issue_stalled_{reason}_per_issue_active.ratio"
        for reason in (
            *("long_scoreboard", "math_pipe_throttle", "no_instruction", "not_selected"),
            *("barrier", "short_scoreboard", "wait", "lg_throttle", "dispatch_stall"),
        )
    ),
    "l1tex__t_sectors_pipe_lsu_mem_global_op_ld.sum",
    "l1tex__t_sector_hit_rate.pct",
    "lts__t_sectors_op_read.sum",
    "lts__t_sector_hit_rate.pct",
    "dram__bytes_read.sum",
    "dram__throughput.avg.pct_of_peak_sustained_elapsed",
)


def run(bench: Bench, record: Record) -> None:
    bench.require()
    if not bench.is_cuda:
        raise Skip("ncu watches CUDA")
    if shutil.which("ncu") is None:
        raise Skip("ncu is not installed")
    log = record.directory / "ncu.csv"
    words = ["ncu", "--csv", "--clock-control", "none", "--profile-from-start", "off"]
    words += ["--print-metric-instances", "values", "--metrics", ",".join(METRICS)]
    end = ended([*words, *watched("profiled", record.directory)], log)
    record.put("end", end)
    record.put("counted", log.read_text(errors="replace").splitlines()[-400:])
    if end != "0":
        raise RuntimeError(f"ncu ended with {end}, see {log.name}")
