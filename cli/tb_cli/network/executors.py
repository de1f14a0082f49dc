"""Where slices run: in threads of this process, or on a cluster."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from compute_market.errors import UsageError

if TYPE_CHECKING:
    from concurrent.futures import Executor


@contextmanager
def executor(
    where: str, workers: int | None, timeout_s: int, backend: str | None
) -> "Iterator[Executor | None]":
    """The executor asked for; None stands for the runner's own threads."""
    if where == "threads":
        yield None
        return
    from tb_cli.network import cluster

    cluster.scheduler_address(where)
    if workers is not None:
        raise UsageError(
            f"--workers {workers} is about threads, and --executor {where} runs none here",
            hint="leave --workers out: a cluster has the workers that were started for it",
        )
    if backend not in (None, "auto", "cpu"):
        raise UsageError(
            f"--backend {backend} is about devices of this machine, and --executor {where} hashes "
            f"on the CPUs of others",
            hint="choose one of them",
        )
    with cluster.executor(where, timeout_s) as executor:
        yield executor
