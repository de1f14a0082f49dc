"""Slices that are worked elsewhere: by path where a worker sees the same file, else by their bytes.

Where that is does not matter here: tasks go to any `concurrent.futures.Executor`. One may run more
than once there; its outcome is taken once.
"""

import os
from collections import deque
from typing import TYPE_CHECKING

from compute_market.errors import MarketError
from compute_market.hashing.files import (
    FileIdentity,
    changed,
    identity_of,
    open_slice,
    unreadable,
)
from compute_market.workloads.places import SENT_MAX_BYTES
from compute_market.workloads.tasks import Outcome, Result, SharedSlice, run_sent, run_shared

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future


class RemoteTasks:
    """The remote tasks of one run of the workload `name`, oldest first.

    Paths are tried as long as workers see the files behind them. Once a worker was found not to,
    which makes the run `blind`, what is left is sent as bytes straight away: no more at a time than
    `under_way_bytes_max` whose results were not taken yet, and those that are asked for.
    """

    def __init__(self, executor: "Executor", name: str, *, under_way_bytes_max: int) -> None:
        self.executor = executor
        self.name = name
        self.blind = False
        self._under_way_bytes_max = under_way_bytes_max
        self._waiting: deque[RemoteTask] = deque()  # Their bytes may have to be sent.
        self._bytes_under_way = 0

    def begin(self, paths: list[str], identities: list[FileIdentity]) -> "RemoteTask":
        """Have slices in a row worked; `identities` are those of the files as found here."""
        task = RemoteTask(self, paths, identities)
        if not self.blind:
            task.send_paths()
        self._waiting.append(task)
        self.forward()
        return task

    def forward(self) -> None:
        """Send the bytes that must be sent, in the order in which results will be asked for."""
        if not self.blind:
            return
        unanswered: deque[RemoteTask] = deque()
        while self._waiting and self._bytes_under_way < self._under_way_bytes_max:
            task = self._waiting.popleft()
            if not task.has_answer():
                unanswered.append(task)
            elif task.is_unseen():
                self._bytes_under_way += task.send_bytes()
        unanswered.extend(self._waiting)
        self._waiting = unanswered

    def send_next(self, task: "RemoteTask") -> None:
        """Send the bytes of the task whose result is asked for, however much is under way."""
        if task in self._waiting:
            self._waiting.remove(task)
            if task.is_unseen():
                self._bytes_under_way += task.send_bytes()
        self.forward()

    def end(self, task: "RemoteTask") -> None:
        self._bytes_under_way -= task.bytes_sent


class RemoteTask:
    """Slices in a row that are worked elsewhere; to be used like a future."""

    def __init__(
        self, tasks: RemoteTasks, paths: list[str], identities: list[FileIdentity]
    ) -> None:
        self.bytes_sent = 0
        self._tasks = tasks
        self._paths = paths
        self._identities = identities
        self._outcomes: list[Outcome | None] = [None] * len(paths)
        self._by_path: Future[list[Outcome | None]] | None = None
        self._by_bytes: Future[list[Result]] | None = None
        # Of the slices sent as bytes: their number in the task, and their identity when read.
        self._sent: dict[int, FileIdentity] = {}

    def done(self) -> bool:
        """Whether there is an answer, be it that bytes have to be sent."""
        answer = self._by_bytes or self._by_path
        return answer is not None and answer.done()

    def cancel(self) -> None:
        for answer in (self._by_path, self._by_bytes):
            if answer is not None:
                answer.cancel()

    def result(self) -> list[Outcome | None]:
        """Wait for the outcome of each slice; None where the slice has to be run here.

        That is one that no worker sees and that is too long to be sent. Raises what the executor
        raises when it cannot do its work.
        """
        if self._by_path is not None:
            self._by_path.result()
        self._tasks.send_next(self)
        if self._by_bytes is not None:
            results = self._by_bytes.result()
            for (index, identity), result in zip(self._sent.items(), results, strict=True):
                self._outcomes[index] = result, identity
        self._tasks.end(self)
        return self._outcomes

    def send_paths(self) -> None:
        """Have a worker run the slices that it sees."""
        slices = [
            SharedSlice(path, _absolute(path), identity)
            for path, identity in zip(self._paths, self._identities, strict=True)
        ]
        self._by_path = self._tasks.executor.submit(run_shared, self._tasks.name, slices)

    def has_answer(self) -> bool:
        """Whether it is known which slices no worker sees."""
        return self._by_path is None or self._by_path.done()

    def is_unseen(self) -> bool:
        """Whether there are slices, once there is an answer, that no worker sees."""
        if self._by_path is not None:
            if self._by_path.cancelled() or self._by_path.exception() is not None:
                return False  # What went wrong is raised when the result is asked for.
            self._outcomes = self._by_path.result()
        return None in self._outcomes

    def send_bytes(self) -> int:
        """Read the slices that no worker sees and send them; return how many bytes that were."""
        contents = []
        for index, outcome in enumerate(self._outcomes):
            if outcome is not None:
                continue
            path = self._paths[index]
            try:
                content, identity = _read(path)
            except MarketError as error:
                self._outcomes[index] = Result(path, b"", 0, error), None
                continue
            # A file that was replaced meanwhile says nothing about what workers see.
            if identity == self._identities[index]:
                self._tasks.blind = True
            if content is not None:
                contents.append((path, content))
                self._sent[index] = identity
        if contents:
            self.bytes_sent = sum(len(content) for _, content in contents)
            self._by_bytes = self._tasks.executor.submit(run_sent, self._tasks.name, contents)
        return self.bytes_sent


def _absolute(path: str) -> str:
    """The path for a process in another directory; `..` stays, for it may follow a link."""
    return path if os.path.isabs(path) else os.path.join(os.getcwd(), path)


def _read(path: str) -> tuple[bytes | None, FileIdentity]:
    """The content of a slice, or None if it is too long to be sent.

    Raises what `open_slice` raises, and IntegrityError (`slice_changed`, `unreadable`).
    """
    descriptor, status = open_slice(path)
    try:
        identity = identity_of(status)
        length = status.st_size
        if length > SENT_MAX_BYTES:
            return None, identity
        # One byte more than announced shows a file that grew.
        content = os.read(descriptor, length + 1)
        while 0 < len(content) < length and (more := os.read(descriptor, length + 1)):
            content += more
        if len(content) != length or identity_of(os.fstat(descriptor)) != identity:
            raise changed(path)
        return content, identity
    except OSError as error:
        raise unreadable(path, error) from error
    finally:
        os.close(descriptor)
