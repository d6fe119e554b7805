"""The time since the machine's start, which setting the clock does not change."""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Boot:
    """One run of the machine: its `id`, and `seconds` since its start, suspends too."""

    id: str
    seconds: Callable[[], float]


def this_boot(boot_id: Path = _BOOT_ID) -> Boot:
    """Return the present boot; without Linux's boot id or clock, one of this process."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    try:
        text = boot_id.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        text = ""
    if clock is None or not text:
        return Boot(secrets.token_hex(16), time.monotonic)
    return Boot(text, lambda: time.clock_gettime(clock))
