"""Run several workers as processes of one command.

The workers share events by the broker's shared subscription; one process of Python uses one core.
"""

import logging
import os
import signal
import threading
from contextlib import suppress

_log = logging.getLogger(__name__)

_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


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
        for number in _FORWARDED:
            signal.signal(number, self._forward)

    def wait(self) -> int:
        """Return the status of the first worker that fails, or 0."""
        first_failure = 0
        while self._workers:
            worker, state = os.wait()
            self._workers.discard(worker)
            status = os.waitstatus_to_exitcode(state)
            if not self._stopping:
                _log.error("bridge worker ended; stopping the others pid=%d status=%d", worker, status)
                first_failure = status if status > 0 else 1
                self._tell_all(signal.SIGTERM)
                self._stopping = True
            elif status and not first_failure:
                first_failure = status if status > 0 else 1
        return first_failure

    def _forward(self, number: int, _frame: object) -> None:
        self._stopping = self._stopping or number != signal.SIGHUP
        self._tell_all(number)

    def _tell_all(self, number: int) -> None:
        for worker in list(self._workers):
            # One that has just ended is waited for.
            with suppress(ProcessLookupError):
                os.kill(worker, number)


def _stop_at_end_of(alive: int) -> None:
    """Stop this worker once its parent has ended, which closes the pipe `alive`."""
    os.read(alive, 1)
    os.kill(os.getpid(), signal.SIGTERM)
