"""The effect of a signal on a device."""

import signal
import threading

from device.__main__ import on_signal


def test_a_signal_is_handled_while_the_main_thread_holds_the_stop_lock() -> None:
    """`Event.wait` holds a lock on every frame, on which a handler could deadlock."""
    lock = threading.Lock()
    stopped = threading.Event()

    def stop() -> None:
        if lock.acquire(timeout=5.0):
            stopped.set()

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    on_signal(stop)
    try:
        with lock:
            signal.raise_signal(signal.SIGTERM)
        assert stopped.wait(5.0)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
