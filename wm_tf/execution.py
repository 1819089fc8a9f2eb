"""Work spread over processes that may hang, die or be killed, with the same results as without.

Work is a function and a sequence of chunks: small data such as paths, seeds and parameter vectors,
never models. `run_chunks` hands the chunks to any `concurrent.futures.Executor` and runs those
that were lost again; what a chunk computes must not depend on where or when it runs, so that the
results are the same with any executor and any number of workers.

`LocalExecutor` is the executor for one machine: processes started with ``spawn``, each computing
on one thread, with a time-out per call. Under each of its slots is a Pebble pool of one process.
The processes of a larger pool share a pipe and its locks, and one that is killed while it holds
them takes the others with it; here a process shares nothing, and whatever happens to it costs its
own chunk only.
"""

from __future__ import annotations

import contextlib
import pickle
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Executor, Future
from typing import Any, TypeVar

from wm_tf.errors import RunFailed, UserError
from wm_tf.processes import Worker

Chunk = TypeVar("Chunk")
Result = TypeVar("Result")


def run_chunks(
    executor: Executor,
    function: Callable[[Chunk], Result],
    chunks: Sequence[Chunk],
    *,
    attempts: int = 3,
    describe: Callable[[Chunk], str] = repr,
    in_flight: int = 1024,
) -> Iterator[tuple[int, Result]]:
    """Computes `function(chunk)` for every chunk, and again for those that are lost.

    Args:
      executor: any executor (`LocalExecutor`, `SerialExecutor`, a thread pool, Dask's, MPI's).
      function: without memory, because a chunk may be computed more than once; picklable by name
        where the executor runs processes.
      chunks: what to compute.
      attempts: how often a chunk may fail (its worker dies, its time is out, it raises).
      describe: a chunk as an error message shall name it.
      in_flight: how many chunks the executor is given at a time.

    Yields:
      (index of the chunk, its result), in the order of completion.

    Raises:
      UserError: `function` raised it; input that cannot be used is not tried again.
      RunFailed: a chunk failed `attempts` times; names the chunk and its last error. Or the
        executor takes no more (its processes or its scheduler are gone).
    """
    for name, number in (("attempts", attempts), ("in_flight", in_flight)):
        if number < 1:
            raise ValueError(f"{name}: expected at least 1, got {number}")
    failures = [0] * len(chunks)
    waiting = iter(range(len(chunks)))
    running: dict[Future[Result], int] = {}
    finished: queue.SimpleQueue[Future[Result]] = queue.SimpleQueue()

    def submit(index: int) -> Future[Result]:
        try:
            future = executor.submit(function, chunks[index])
        except (UserError, RunFailed):
            raise
        except Exception as error:  # each executor has its own for what it has lost
            raise RunFailed(f"the executor takes no more chunks: {_summary(error)}") from error
        running[future] = index
        future.add_done_callback(finished.put)
        return future

    try:
        while True:
            # An executor that computes in `submit` is given one chunk at a time.
            while len(running) < in_flight and (index := next(waiting, -1)) >= 0:
                if submit(index).done():
                    break
            if not running:
                return
            future = finished.get()
            index = running.pop(future)
            error = _error(future)
            if error is None:
                yield index, future.result()
            elif isinstance(error, UserError):
                raise error
            else:
                failures[index] += 1
                if failures[index] >= attempts:
                    raise RunFailed(
                        f"chunk {describe(chunks[index])} failed {attempts} times, "
                        f"at last with {_summary(error)}"
                    ) from error
                submit(index)
    finally:
        for future in running:
            future.cancel()


def map_chunks(
    executor: Executor,
    function: Callable[[Chunk], Result],
    chunks: Sequence[Chunk],
    *,
    attempts: int = 3,
    describe: Callable[[Chunk], str] = repr,
) -> list[Result]:
    """The results of `run_chunks`, in the order of the chunks."""
    results = dict(run_chunks(executor, function, chunks, attempts=attempts, describe=describe))
    return [results[index] for index in range(len(chunks))]


class SerialExecutor(Executor):
    """Makes every call at once, in this process: for tests, and to debug a chunk."""

    def submit(
        self, function: Callable[..., Result], /, *args: Any, **kwargs: Any
    ) -> Future[Result]:
        """Calls `function(*args, **kwargs)` and returns its finished future."""
        future: Future[Result] = Future()
        try:
            future.set_result(function(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class LocalExecutor(Executor):
    """Spawned processes on this machine, each computing on one thread.

        with LocalExecutor(workers=2, timeout=600) as executor:
            for index, result in run_chunks(executor, function, chunks):
                ...

    A future fails with ``pebble.ProcessExpired`` when its process dies, and with ``TimeoutError``
    when it is not done in time; the process, and whatever it started, is then killed and replaced.
    The other workers notice nothing. Workers leave with their parent, however it ends.

    Leaving the ``with`` block by an exception (Ctrl-C included) kills the workers; leaving it
    otherwise lets them finish what was submitted.

    Args:
      workers: number of processes, each started when there is work for it.
      timeout: seconds for one call, the imports of a process's first call included; None: no
        limit.
    """

    def __init__(self, workers: int, timeout: float | None = None) -> None:
        if workers < 1:
            raise ValueError(f"workers: expected at least 1, got {workers}")
        if timeout is not None and timeout <= 0:
            raise ValueError(f"timeout: expected a positive number of seconds, got {timeout}")
        self.workers = workers
        self._calls: queue.SimpleQueue[tuple[Future[Any], bytes] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        self._processes = [Worker(timeout) for _ in range(workers)]
        self._slots = [
            threading.Thread(target=self._serve, args=(worker,), name="worker slot", daemon=True)
            for worker in self._processes
        ]
        for slot in self._slots:
            slot.start()

    def submit(
        self, function: Callable[..., Result], /, *args: Any, **kwargs: Any
    ) -> Future[Result]:
        """Schedules `function(*args, **kwargs)`, all of it picklable, in one of the processes."""
        call = pickle.dumps((function, args, kwargs))
        future: Future[Result] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError("the executor is shut down")
            self._calls.put((future, call))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Ends the workers once they have finished what was submitted."""
        with self._lock:
            if not self._closed:
                self._closed = True
                if cancel_futures:
                    self._cancel_calls()
                for _ in self._slots:
                    self._calls.put(None)
        if wait:
            for slot in self._slots:
                slot.join()

    def kill(self) -> None:
        """Ends the workers at once: what they are computing fails, the rest is cancelled."""
        self.shutdown(wait=False, cancel_futures=True)
        # Not a pool of threads, which takes no more work while the interpreter ends.
        ends = [threading.Thread(target=worker.end) for worker in self._processes]
        for end in ends:
            end.start()
        for end in ends:
            end.join()
        self.shutdown(wait=True)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.shutdown()
        else:
            self.kill()

    def _cancel_calls(self) -> None:
        with contextlib.suppress(queue.Empty):
            while call := self._calls.get_nowait():
                call[0].cancel()

    def _serve(self, worker: Worker) -> None:
        while item := self._calls.get():
            future, call = item
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(worker.call(call))
            except Exception as error:
                future.set_exception(error)
        worker.end()


def _error(future: Future[Any]) -> BaseException | None:
    """What a finished future failed with."""
    try:
        return future.exception()
    except CancelledError as error:  # Dask cancels what it lost
        return error


def _summary(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
