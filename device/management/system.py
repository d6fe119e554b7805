"""Read memory, disk and temperatures from the operating system."""

import os
from dataclasses import dataclass, field
from pathlib import Path

_MEGABYTE = 1024 * 1024


@dataclass(frozen=True)
class SystemReadings:
    """Memory, free disk and temperatures of a device.

    Memory of this process and free disk are in MB, temperatures in degrees Celsius by zone name. A
    reading that the system does not have is absent.
    """

    memory_mb: float | None = None
    disk_free_mb: float | None = None
    temperatures: dict[str, float] = field(default_factory=dict)


def read_system(
    folder: Path, *, proc: Path = Path("/proc"), thermal: Path = Path("/sys/class/thermal")
) -> SystemReadings:
    """Return the readings of now; `folder` lies on the disk to measure."""
    return SystemReadings(_memory_mb(proc), _disk_free_mb(folder), _temperatures(thermal))


def _memory_mb(proc: Path) -> float | None:
    try:
        resident_pages = int((proc / "self" / "statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return round(resident_pages * os.sysconf("SC_PAGE_SIZE") / _MEGABYTE, 1)


def _disk_free_mb(folder: Path) -> float | None:
    try:
        disk = os.statvfs(folder)
    except OSError:
        return None
    return round(disk.f_bavail * disk.f_frsize / _MEGABYTE, 1)


def _temperatures(thermal: Path) -> dict[str, float]:
    readings: dict[str, float] = {}
    for zone in sorted(thermal.glob("thermal_zone*"))[:32]:
        try:
            # A Jetson's zones cannot be read while they are switched off.
            readings[(zone / "type").read_text().strip()[:128]] = int((zone / "temp").read_text()) / 1000
        except (OSError, ValueError):
            continue
    return readings
