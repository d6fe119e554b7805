"""Check the machine: installed versions and clock."""

import importlib.metadata
import importlib.util
import platform
import re
import shutil
import subprocess
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from pydantic import JsonValue

from broker_bridge.contract.wire import format_time
from device.timing.device_clock import is_plausible

from .check import CheckResult

_L4T_RELEASE = Path("/etc/nv_tegra_release")
_TIMESYNC_FLAG = Path("/run/systemd/timesync/synchronized")
_TIMEDATECTL_SECONDS = 3.0

# The usual name, the distributions, and the module for an installation without one.
_LIBRARIES: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("NumPy", ("numpy",), "numpy"),
    ("OpenCV", ("opencv-python-headless", "opencv-python", "opencv-contrib-python"), "cv2"),
    ("ONNX Runtime", ("onnxruntime-gpu", "onnxruntime"), "onnxruntime"),
    ("FAISS", ("faiss-cpu", "faiss-gpu"), "faiss"),
    ("TensorRT", ("tensorrt",), "tensorrt"),
    ("cuda-python", ("cuda-python", "cuda-bindings"), "cuda"),
)


def installed_version(distribution: str) -> str | None:
    """Return the version of an installed distribution, without importing it."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def check_versions(
    version_of: Callable[[str], str | None] = installed_version, l4t_release: Path = _L4T_RELEASE
) -> CheckResult:
    """Report the versions of Python, the libraries and the system, importing nothing."""
    found = {name: _version(distributions, module, version_of) for name, distributions, module in _LIBRARIES}
    machine = f"{platform.system()} {platform.release()} on {platform.machine()}"
    l4t = _l4t(l4t_release)
    parts = [f"wfm-fleet {version_of('wfm-fleet')}", f"Python {platform.python_version()}"]
    parts += [f"{name} {version}" if version else f"no {name}" for name, version in found.items()]
    parts += [machine, *([f"L4T {l4t}"] if l4t else [])]
    doubled = version_of("onnxruntime") and version_of("onnxruntime-gpu")
    return CheckResult(
        "versions",
        "warning" if doubled else "ok",
        ", ".join(parts),
        "onnxruntime and onnxruntime-gpu overwrite each other: uninstall both, then install one"
        if doubled
        else None,
        {
            "wfm-fleet": version_of("wfm-fleet"),
            "python": platform.python_version(),
            **found,
            "machine": machine,
            "l4t": l4t,
        },
    )


def _version(
    distributions: tuple[str, ...], module: str, version_of: Callable[[str], str | None]
) -> str | None:
    versions = (version_of(distribution) for distribution in distributions)
    found = next((version for version in versions if version), None)
    # JetPack's own OpenCV is a module without a distribution.
    return found or ("of the system" if importlib.util.find_spec(module) else None)


def _l4t(release: Path) -> str | None:
    """Return `R36.4.0` for `# R36 (release), REVISION: 4.0, ...`.

    None on other machines.
    """
    try:
        text = release.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = re.match(r"#\s*(R\d+) \(release\), REVISION: ([\d.]+)", text)
    return f"{found[1]}.{found[2]}" if found else "of an unknown release"


def check_clock(now: datetime, synchronised: bool | None) -> CheckResult:
    """Check the time of day; `synchronised` is None if it is unknown."""
    values: dict[str, JsonValue] = {"now": format_time(now), "synchronised": synchronised}
    sentences = {True: "synchronised", False: "not synchronised", None: "its synchronisation is unknown"}
    detail = f"{format_time(now)}, {sentences[synchronised]}; its error is not measured"
    if not is_plausible(now):
        advice = "set the clock: events of this device wait until their time is known"
        return CheckResult("clock", "fault", detail, advice, values)
    if synchronised is False:
        return CheckResult("clock", "warning", detail, "let the machine keep its time by NTP", values)
    return CheckResult("clock", "ok", detail, None, values)


def clock_is_synchronised(flag: Path = _TIMESYNC_FLAG, timedatectl: str | None = None) -> bool | None:
    """Return whether `timedatectl` or the flag of systemd reports synchronisation.

    `timedatectl` covers every time service; None if there is neither.
    """
    command = timedatectl or shutil.which("timedatectl")
    if command is not None:
        try:
            answer = subprocess.run(  # noqa: S603  # a program of the system, with fixed arguments
                [command, "show", "-p", "NTPSynchronized", "--value"],
                capture_output=True,
                text=True,
                timeout=_TIMEDATECTL_SECONDS,
                check=False,
            ).stdout.strip()
        except (OSError, subprocess.TimeoutExpired):
            answer = ""
        if answer in ("yes", "no"):
            return answer == "yes"
    return True if flag.exists() else None
