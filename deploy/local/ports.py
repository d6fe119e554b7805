"""Find free TCP ports on the loopback interface."""

import random
import socket
import sys

# Below the kernel's range for outgoing connections: else a client that retries a stopped server may get that
# server's port as its own and connect to itself.
_FIRST, _LAST = 20_000, 29_999

# Ports that this process was given, by an abstract socket each: no other process of ours takes one meanwhile.
_reserved: dict[int, socket.socket] = {}


def free_port(preferred: int | None = None) -> int:
    """Return `preferred` if it is free, else a free port between 20,000 and 29,999."""
    candidates = random.SystemRandom().sample(range(_FIRST, _LAST + 1), 200)
    for port in [preferred, *candidates] if preferred else candidates:
        if port is not None and _is_free(port) and _reserve(port):
            return port
    raise OSError(f"no free port between {_FIRST} and {_LAST} on 127.0.0.1")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do: a port in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _reserve(port: int) -> bool:
    """Return whether no other process was given `port`; reserve it until the end."""
    if port in _reserved or sys.platform != "linux":
        return True
    reservation = socket.socket(socket.AF_UNIX)
    try:
        reservation.bind(f"\0wfm-fleet-port-{port}")
    except OSError:
        reservation.close()
        return False
    _reserved[port] = reservation
    return True
