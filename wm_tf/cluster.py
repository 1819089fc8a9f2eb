"""Chunks of rollouts and of dreams on other machines, through any executor that reaches them.

    with dask("tcp://head:8786", timeout=1800) as executor:
        outcomes = map_chunks(executor, agent.play, chunks)

A chunk gives the same numbers there as here, because it is played by the same kind of process:
under each worker of the cluster is a `LocalExecutor` with one, which has one thread, a time-out
and an end. A worker asks for nothing: models come to it by their content, as a parcel beside the
chunk, and the episodes that are recorded come back with the result and are written here.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.util
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, InvalidStateError
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from wm_tf import agent, storage
from wm_tf.errors import RunFailed, UserError
from wm_tf.execution import LocalExecutor
from wm_tf.extras import require
from wm_tf.serving import parcel

if TYPE_CHECKING:
    from distributed import Client


class Work(Protocol):
    """A chunk: small data that says what to compute."""

    @property
    def task(self) -> str: ...
    @property
    def models(self) -> agent.ModelsAt | None: ...
    @property
    def records(self) -> Sequence[Path]:
        """Files that it writes."""

    def recording_at(self, paths: Sequence[Path]) -> Work:
        """The same, with other places for its `records`."""


Share = Callable[[agent.ModelsAt, str], Any]
"""What to hand to an executor so that a task's models, packed, are at hand where a call is made."""

_CONNECT_SECONDS = 30
HELD_MODELS = 8
"""So many models stay on the cluster, those used last: more than dream together."""


class RemoteExecutor(Executor):
    """Plays chunks on the machines of another executor.

    Args:
      executor: reaches them (Dask's, MPI's).
      timeout: seconds for one chunk; None: no limit.
      share: how models reach them; None: they have the models' folder, by the same path.
      workers: how many there are at present.
    """

    def __init__(
        self,
        executor: Executor,
        timeout: float | None = None,
        share: Share | None = None,
        workers: Callable[[], int] = lambda: 1,
    ) -> None:
        self._executor = executor
        self._timeout = timeout
        self._share = share
        self._workers = workers
        self._under_way: set[_Delivery] = set()
        self._lost: RunFailed | None = None

    @property
    def workers(self) -> int:
        """How many there are at present; raises RunFailed where nobody answers."""
        try:
            return self._workers()
        except Exception as error:  # each executor has its own for what it has lost
            raise RunFailed(f"the executor does not answer: {error}") from error

    def submit(self, function: Callable[[Any], Any], chunk: Work, /) -> Future[Any]:  # type: ignore[override]
        """Schedules `function(chunk)`; raises RunFailed once the executor is lost."""
        if self._lost is not None:
            raise self._lost
        models = None
        if self._share is not None and chunk.models is not None:
            models = self._share(chunk.models, chunk.task)
        reply = self._executor.submit(_play_there, function, chunk, models, self._timeout)
        delivery = _Delivery(reply, chunk.records)
        self._under_way.add(delivery)
        delivery.add_done_callback(self._under_way.discard)  # type: ignore[arg-type]
        if self._lost is not None:  # meanwhile
            delivery.lose(self._lost)
        return delivery

    def lose(self, error: RunFailed) -> None:
        """Ends what is under way with an error: nothing will come any more, and nothing goes."""
        self._lost = error
        for delivery in list(self._under_way):
            delivery.lose(error)


class _Delivery(Future[Any]):
    """A reply from another machine, done when the episodes in it are written."""

    def __init__(self, reply: Future[Any], records: Sequence[Path]) -> None:
        super().__init__()
        self._reply = reply
        self._records = records
        reply.add_done_callback(self._receive)

    def cancel(self) -> bool:
        self._reply.cancel()
        return super().cancel()

    def lose(self, error: RunFailed) -> None:
        with contextlib.suppress(InvalidStateError):  # it came at the last moment
            self.set_exception(error)

    def _receive(self, reply: Future[Any]) -> None:
        if self.done() or not self.set_running_or_notify_cancel():  # done: cancelled, or lost
            return
        try:
            outcomes, episodes = reply.result()
            for path, data in zip(self._records, episodes, strict=True):
                storage.write_bytes(path, data)
        except BaseException as error:  # a cancelled reply is none of the Exceptions
            with contextlib.suppress(InvalidStateError):  # it is given up meanwhile
                self.set_exception(error)
        else:
            with contextlib.suppress(InvalidStateError):
                self.set_result(outcomes)


def _play_there(
    function: Callable[[Any], Any], chunk: Work, models: bytes | None, timeout: float | None
) -> tuple[Any, list[bytes]]:
    """On the other machine: (what the chunk gives, the files that it writes)."""
    if models is not None and chunk.models is not None:
        parcel.unpack(models, chunk.models.checksum)
    with tempfile.TemporaryDirectory(prefix="wm_tf_") as folder:
        records = [Path(folder) / str(index) for index in range(len(chunk.records))]
        result = _process(timeout).submit(function, chunk.recording_at(records)).result()
        return result, [path.read_bytes() for path in records]


_started: dict[float | None, LocalExecutor] = {}
_starting = threading.Lock()


def _process(timeout: float | None) -> LocalExecutor:
    """This worker's own process, which stays; the worker's threads take turns."""
    with _starting:
        if timeout not in _started:
            # Dask forbids its workers to have children, lest they stay behind; ours leave.
            multiprocessing.current_process().daemon = False
            _started[timeout] = LocalExecutor(1, timeout)
            multiprocessing.util.Finalize(None, _started[timeout].kill, exitpriority=1)
        return _started[timeout]


@contextlib.contextmanager
def dask(address: str, timeout: float | None = None) -> Iterator[RemoteExecutor]:
    """The workers of a Dask cluster, as an executor.

    Args:
      address: of its scheduler, such as ``tcp://head:8786``.
      timeout: seconds for one chunk.

    Raises:
      UserError: ``distributed`` is not installed, or no scheduler answers there.
      RunFailed: the scheduler has no workers.
    """
    require("distributed", "distributed")
    from distributed import Client

    try:
        client = Client(address, timeout=_CONNECT_SECONDS)
    except Exception as error:  # which depends on the kind of address
        raise UserError(f"--scheduler: no Dask scheduler answers at {address} ({error})") from None
    with client:
        try:
            client.wait_for_workers(1, timeout=_CONNECT_SECONDS)
        except OSError as error:  # a time-out, or a connection that is lost meanwhile
            raise RunFailed(f"the scheduler at {address} has no workers ({error})") from None
        executor = RemoteExecutor(
            client.get_executor(pure=False),
            timeout,
            _scatter(client),
            lambda: len(client.nthreads()),
        )
        left = threading.Event()
        watch = threading.Thread(target=_watch, args=(client, executor, address, left), daemon=True)
        watch.start()
        try:
            yield executor
        finally:
            left.set()


def _watch(client: Client, executor: RemoteExecutor, address: str, left: threading.Event) -> None:
    """Dask tries for a while to reach a scheduler that is gone; then its futures never end."""
    while not left.wait(1.0):
        if client.status == "closed":
            executor.lose(RunFailed(f"the scheduler at {address} is gone"))
            return


def _scatter(client: Client) -> Share:
    """Hands models to Dask once; its workers fetch them from each other, each of them once."""
    held: dict[str, Any] = {}  # the last ones used come last

    def share(models: agent.ModelsAt, task: str) -> Any:
        known = held.pop(models.checksum, None)
        if known is None or known.status != "finished":  # those who had them are gone
            known = client.scatter(parcel.pack(models.folder, task))
        held[models.checksum] = known
        while len(held) > HELD_MODELS:
            del held[next(iter(held))]
        return known

    return share
