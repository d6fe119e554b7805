"""What a signal does to a device."""

import signal
import threading

from device.__main__ import on_signal


def test_a_signal_is_heard_while_the_main_thread_holds_the_lock_that_stopping_takes() -> None:
    """`Event.wait` holds one for a moment on every frame; a handler that took it would hang for ever."""
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
