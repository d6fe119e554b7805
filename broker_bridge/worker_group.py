"""Run several workers as processes of one command.

The workers share events by the broker's shared subscription; one process of Python uses one core.
"""

import logging
import os
import signal
import threading
from contextlib import suppress

_log = logging.getLogger(__name__)

_STOPPING = (signal.SIGTERM, signal.SIGINT)


def fork_workers(count: int) -> int | None:
    """Fork workers; return None in each of them, the exit status in this process.

    Call it before threads or an event loop exist. This process passes signals on and returns once all workers
    have ended. A worker that ends by itself ends the others, and its status is returned: a supervisor starts
    all again. Workers stop when this process is killed.
    """
    alive, parent_only = os.pipe()
    workers: set[int] = set()
    for _ in range(count):
        worker = os.fork()
        if worker == 0:
            os.close(parent_only)
            threading.Thread(target=_stop_at_end_of, args=(alive,), daemon=True).start()
            return None
        workers.add(worker)
    os.close(alive)
    return _Group(workers).wait()


class _Group:
    """The workers of this process."""

    def __init__(self, workers: set[int]) -> None:
        self._workers = workers
        self._stopping = False
        for number in (*_STOPPING, signal.SIGHUP):
            signal.signal(number, self._forward)

    def wait(self) -> int:
        """Return the exit status of the first worker that fails, or 0."""
        first_failure = 0
        while self._workers:
            worker, state = os.wait()
            self._workers.discard(worker)
            status = os.waitstatus_to_exitcode(state)
            first_failure = first_failure or exit_status_of(status, stopping=self._stopping)
            if not self._stopping:
                _log.error("bridge worker ended; stopping the others pid=%d status=%d", worker, status)
                self._stopping = True
                self._tell_all(signal.SIGTERM)
        return first_failure

    def _forward(self, number: int, _frame: object) -> None:
        self._stopping = self._stopping or number in _STOPPING
        self._tell_all(number)

    def _tell_all(self, number: int) -> None:
        for worker in list(self._workers):
            # One that has just ended is waited for.
            with suppress(ProcessLookupError):
                os.kill(worker, number)


def exit_status_of(status: int, *, stopping: bool) -> int:
    """Return the exit status of the command for the end of a worker.

    `status` is the worker's, negative for a signal. A worker that was told to stop before it had its handlers
    has ended as it should.
    """
    if status >= 0:
        return status
    return 0 if stopping and -status in _STOPPING else 1


def _stop_at_end_of(alive: int) -> None:
    """Stop this worker once its parent has ended, which closes the pipe `alive`."""
    os.read(alive, 1)
    os.kill(os.getpid(), signal.SIGTERM)
