"""Execution on more than one machine: a Dask cluster as a `concurrent.futures.Executor`.

This module alone talks to `distributed`, which is an extra and takes long to import.
"""

import logging
import os
import pickle
import re
import socket
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from ipaddress import AddressValueError, IPv6Address
from typing import Any, TypeVar

from compute_market.errors import BusyError, MarketError, UsageError
from compute_market.hashing.probe import installing
from tb_cli.frame.render import note

T = TypeVar("T")

_ADDRESS = re.compile(r"dask://(\[[^\[\]]*\]|[^\[\]:]*):([0-9]{1,5})", re.ASCII)
_HOST = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(\.(?!-)[A-Za-z0-9_-]{1,63})*\.?", re.ASCII)
# How often a command that waits asks whether the cluster is still there.
_LOOK_S = 0.5
_CLOSE_S = 2.0
# On a terminal a longer wait for a cluster is told.
_TELL_AFTER_S = 1.0
_REFUSAL_S = 1.0
# Where Dask's configuration names files that a client reads, and its attributes for them.
_TLS_FILES = {
    "distributed.comm.tls.ca-file": "tls_ca_file",
    "distributed.comm.tls.client.cert": "tls_client_cert",
    "distributed.comm.tls.client.key": "tls_client_key",
}
_AGAIN = "run the command again; `compute execute` goes on where it stopped"


@contextmanager
def executor(where: str, timeout_s: float) -> Iterator[Executor]:
    """The cluster `where`, dask://HOST:PORT, as an executor for as long as the block runs.

    Raises UsageError for a bad address. It connects with the first task, which then raises
    UsageError without the extra or when Dask's configuration cannot be used, and BusyError when no
    scheduler with a worker answers within the time.
    """
    cluster = _Cluster(where, scheduler_address(where), timeout_s)
    try:
        yield cluster
    finally:
        cluster.shutdown()


def scheduler_address(where: str) -> str:
    """HOST:PORT of dask://HOST:PORT. Which protocol is spoken there, Dask's configuration says."""
    match = _ADDRESS.fullmatch(where)
    if match is None or not _is_host(match[1]) or not 0 < int(match[2]) < 65_536:
        raise UsageError(
            f"--executor {where!a} is neither threads nor dask://HOST:PORT",
            hint="for example dask://scheduler.example:8786 or dask://[::1]:8786",
        )
    return f"{match[1]}:{int(match[2])}"


def _is_host(host: str) -> bool:
    if not host.startswith("["):
        return len(host) <= 253 and _HOST.fullmatch(host) is not None
    try:
        IPv6Address(host[1:-1])
    except AddressValueError:
        return False
    return True


def _be_quiet() -> None:
    """Keep what Dask tells a log or warns of off stderr: what matters is raised as an error."""
    logging.disable(logging.CRITICAL)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")


class _Cluster(Executor):
    """The executor of a Dask client, whose futures raise MarketErrors and never wait in vain.

    Calls that may never return run in a thread of their own: a peer that accepts a connection and
    then says nothing must not hold a command up, nor keep Ctrl-C from ending it.
    """

    def __init__(self, where: str, address: str, timeout_s: float) -> None:
        self._where = where
        self._address = address
        self._timeout_s = timeout_s
        self._aside = ThreadPoolExecutor(1)
        self._client: Any = None
        self._executor: Any = None
        self._connection: Any = None
        self._question: Future[dict[str, int]] | None = None
        self._lost: MarketError | None = None
        self._has_told = False

    def _connect(self) -> None:
        _be_quiet()
        client_class = _client_class()
        # Dask has less time, so as to be able to say what kept it from connecting.
        timeout_s = self._timeout_s - min(2.0, self._timeout_s / 2)
        connecting = self._aside.submit(_client, client_class, self._address, timeout_s)
        began = time.monotonic()
        if not wait((connecting,), min(_TELL_AFTER_S, self._timeout_s)).done:
            self._tell(began)
            wait((connecting,), self._timeout_s - _TELL_AFTER_S)
        if not connecting.done():
            raise self._silent()
        error = connecting.exception()
        if isinstance(error, OSError):
            raise self._silent(_reason(error) or self._refusal())
        if isinstance(error, MarketError):
            raise error
        # Of another protocol the first bytes read as a length that no memory holds.
        if isinstance(error, MemoryError):
            raise self._silent("what answers is no Dask scheduler")
        if error is not None:
            raise UsageError(
                f"{self._where}: {type(error).__name__}: {error}",
                hint="a Dask scheduler must be listening there, and Dask's own configuration "
                "(~/.config/dask, DASK_… variables) fit it",
            )
        self._client = connecting.result()
        self._connection = self._client.scheduler_comm
        self._executor = self._client.get_executor(pure=False)
        while not self._has_workers(began):
            time.sleep(_LOOK_S / 10)

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> "Future[T]":
        """Never raises: a future tells what kept its task from being sent.

        The first one connects. If that fails, no other tries again.
        """
        if self._client is None and self._lost is None:
            try:
                self._connect()
            except MarketError as error:
                self._lost = error
        if self._lost is None and self._is_connected():
            call = pickle.dumps(_Call(partial(fn, *args, **kwargs)), pickle.HIGHEST_PROTOCOL)
            return _Reply(self, self._executor.submit(pickle.loads, call))
        reply: Future[T] = Future()
        reply.set_exception(self.gone())
        return reply

    def shutdown(self, wait_: bool = True, *, cancel_futures: bool = False) -> None:
        """Leave the cluster, which forgets the tasks it has not begun."""
        if self._client is not None:
            # Dask's own timeout bounds most of it, but not all.
            closing = ThreadPoolExecutor(1).submit(self._client.close, timeout=_CLOSE_S)
            wait((closing,), 2 * _CLOSE_S)
        self._aside.shutdown(wait=False)

    def wait_for(self, reply: "_Reply[Any]") -> None:
        """Wait until a reply is there, for as long as there are workers that may be at it.

        Raises BusyError when there is none for the time that the cluster is given, or when the
        scheduler has gone.
        """
        since = time.monotonic()
        while not wait((reply,), _LOOK_S).done:
            if self._has_workers(since):
                since = time.monotonic()

    def gone(self) -> MarketError:
        """Why the cluster does nothing any more: what was found before, or no scheduler."""
        return self._lost or BusyError(f"{self._where}: the scheduler went away", hint=_AGAIN)

    def explained(self, error: BaseException) -> BaseException:
        """What a task raised, as an error that an operator can act on; else as it is."""
        from distributed.scheduler import KilledWorker, NoValidWorkerError

        if isinstance(error, KilledWorker):
            return BusyError(
                f"{self._where}: {error.allowed_failures + 1} workers died, one after the other, "
                f"while they ran the same slices",
                hint="see the log of the workers: memory may have run out; then " + _AGAIN,
            )
        # The second is what unpickling says of a function that another version does not have.
        if isinstance(error, ImportError) or str(error).startswith("Can't get attribute "):
            return UsageError(
                f"{self._where}: a worker cannot run slices: {error}",
                hint="install the same versions of tb-cli and of packages with workloads there",
            )
        if isinstance(error, NoValidWorkerError):
            return self._deserted()
        if isinstance(error, OSError):  # Those about a slice are in its result.
            return BusyError(f"{self._where}: {str(error) or type(error).__name__}", hint=_AGAIN)
        return error

    def _has_workers(self, since: float) -> bool:
        """Ask the scheduler. Raises BusyError if there was none since then, and time is up."""
        if self._lost is not None or not self._is_connected():
            raise self.gone()
        # A question that has no answer yet is not asked again.
        self._question = self._question or self._aside.submit(self._client.nthreads)
        is_answered = bool(wait((self._question,), _LOOK_S).done)
        if is_answered:
            question, self._question = self._question, None
            if question.exception() is None and question.result():
                return True
        if time.monotonic() - since >= self._timeout_s:
            self._lost = self._deserted() if is_answered else self._silent()
            raise self._lost
        self._tell(since)
        return False

    def _tell(self, since: float) -> None:
        """Say once to whoever watches what has been waited for since then, if that is long."""
        is_long = time.monotonic() - since >= _TELL_AFTER_S
        if is_long and not self._has_told and sys.stderr.isatty():
            self._has_told = True
            note(f"waiting for a worker at {self._where}")

    def _is_connected(self) -> bool:
        """Whether there is still the first connection: the tasks of a broken one are lost."""
        client = self._client
        return client.status == "running" and client.scheduler_comm is self._connection

    def _refusal(self) -> str:
        """Why nobody can be reached there at all, if so.

        Dask knows of its last attempt alone, which may have been cut off by the end of its time.
        """
        host, port = self._address.rsplit(":", 1)
        address = (host.strip("[]"), int(port))
        attempt = self._aside.submit(socket.create_connection, address, _REFUSAL_S)
        if not wait((attempt,), _REFUSAL_S).done:
            return ""
        if (error := attempt.exception()) is None:
            attempt.result().close()
        return _reason(error)

    def _silent(self, reason: str = "") -> BusyError:
        return BusyError(
            f"{self._where}: no scheduler within {self._timeout_s:g} s: {reason or 'no answer'}",
            hint="check the address and that the scheduler runs; then " + _AGAIN,
        )

    def _deserted(self) -> BusyError:
        return BusyError(
            f"{self._where}: no worker within {self._timeout_s:g} s",
            hint="start workers; then " + _AGAIN,
        )


class _Call:
    """A call that is made by unpickling it.

    Sent as it is, a function of a module that a worker lacks makes the whole message unreadable,
    whereupon the worker ends. Sent like this it fails the task, and the scheduler need not have
    the module at all.
    """

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call

    def __reduce__(self) -> tuple[Callable[[], Any], tuple[()]]:
        return self._call, ()


class _Reply(Future[T]):
    """What comes back from a task; waiting for its result ends if the cluster does."""

    def __init__(self, cluster: _Cluster, task: "Future[T]") -> None:
        super().__init__()
        self._cluster = cluster
        self._task: Future[T] | None = task
        self.set_running_or_notify_cancel()
        task.add_done_callback(self._arrive)

    def cancel(self) -> bool:
        task = self._task
        return task is not None and task.cancel()

    def result(self, timeout: float | None = None) -> T:
        """The task's result, however long it takes; `timeout` is not used."""
        self._cluster.wait_for(self)
        return super().result()

    def _arrive(self, task: "Future[T]") -> None:
        # As long as anything here leads to the task, the scheduler keeps what it was sent for it.
        self._task = None
        if task.cancelled():  # By the client too, when it has lost the scheduler.
            self.set_exception(self._cluster.gone())
        elif (error := task.exception()) is not None:
            self.set_exception(self._cluster.explained(error))
        else:
            self.set_result(task.result())


def _client_class() -> Any:
    try:
        from distributed import Client
    except ImportError as error:
        raise UsageError(
            f"--executor dask://… needs a package that is not installed: {error.name}",
            hint=installing("cluster"),
        ) from error
    except ValueError as error:
        raise UsageError(f"Dask's own configuration: {error}") from error
    return Client


def _client(client_class: Any, address: str, timeout_s: float) -> Any:
    """A client that is connected.

    Raises UsageError for TLS files that are of no use, which are no matter of the network, and
    whatever else Dask raises.
    """
    from distributed.security import Security

    security = Security()
    try:
        security.get_connection_args("client")
    except OSError as error:
        raise UsageError(
            f"Dask's own configuration: {_unreadable_file(security) or error}",
            hint=f"{', '.join(_TLS_FILES)} name files in PEM format",
        ) from error
    return client_class(address, timeout=timeout_s, security=security, set_as_default=False)


def _unreadable_file(security: Any) -> str | None:
    """The first TLS file that cannot be read, with its name in Dask's configuration."""
    for key, attribute in _TLS_FILES.items():
        path = getattr(security, attribute)
        try:
            # The text of a certificate may stand there as well.
            if path and "\n" not in path:
                os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
        except OSError as error:
            return f"{key}: {path}: {(error.strerror or str(error)).lower()}"
    return None


def _reason(error: BaseException | None) -> str:
    """What kept Dask from connecting. It says "timed out" of everything; the first cause knows."""
    reason = ""
    cause = error
    while isinstance(cause, OSError):
        reason = cause.strerror or reason
        cause = cause.__cause__
    return reason.lower()
