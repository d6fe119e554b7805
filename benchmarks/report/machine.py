"""State what the benchmarks ran on: machine, versions, kernels of the libraries."""

import os
import platform
import re
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_info

from deploy.local.mosquitto import find_mosquitto
from deploy.local.stack import ProgramError, find_mongod

_PACKAGES = ("numpy", "faiss-cpu", "opencv-python-headless", "onnxruntime", "pymongo", "paho-mqtt", "mqtt5")
_MISSING = "not here"
# The kernels of OpenBLAS that use what a CPU has. An older one makes the bare product slow, and our ratios
# look good.
_AVX512 = frozenset({"SkylakeX", "Cooperlake", "SapphireRapids"})
_FITTING = {"avx512f": _AVX512, "avx2": _AVX512 | {"Haswell", "Zen"}}


def describe_machine() -> dict[str, str]:
    """Return name and value of each fact, in the order of the table."""
    kernel = blas_kernel()
    warning = judge_kernel(kernel, cpu_flags())
    return {
        "machine": f"{platform.machine()}, {_cpu_model()}, {os.cpu_count()} cores",
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "Python": platform.python_version(),
        "Mosquitto": _program_version(find_mosquitto, "-h"),
        "MongoDB": _program_version(find_mongod, "--version"),
        **{name: _package_version(name) for name in _PACKAGES},
        "BLAS of numpy": f"{kernel}; {warning}" if warning else kernel,
        "SIMD of FAISS": faiss_level(),
    }


def blas_kernel() -> str:
    """Return library, version and kernel that numpy multiplies with."""
    np.ones((2, 2)) @ np.ones((2, 2))
    return name_kernel(threadpool_info())


def name_kernel(libraries: Sequence[dict[str, Any]]) -> str:
    """Return the kernel of numpy's BLAS among the `libraries` of threadpoolctl.

    FAISS and OpenCV bring a BLAS of their own.
    """
    found = [one for one in libraries if one["user_api"] == "blas"]
    own = [one for one in found if "/numpy" in one["filepath"]]
    shared = [one for one in found if not re.search("/(faiss|opencv)", one["filepath"])]
    if not own and not shared:
        return "unknown: no BLAS of numpy is loaded"
    blas = (own or shared)[0]
    kernel = blas.get("architecture") or "unknown"
    return f"{blas['internal_api']} {blas['version']}, kernel {kernel}, {blas['num_threads']} threads"


def judge_kernel(kernel: str, flags: frozenset[str]) -> str:
    """Return a warning if OpenBLAS runs a kernel older than the CPU, else ""."""
    found = re.search(r"openblas .*kernel (\w+)", kernel)
    best = next((flag for flag in _FITTING if flag in flags), None)
    if not found or best is None or found[1] in _FITTING[best]:
        return ""
    return f"older than this CPU, which has {best}: ratios to numpy flatter"


def faiss_level() -> str:
    """Return the SIMD level that FAISS runs."""
    try:
        import faiss  # noqa: PLC0415  # optional
    except ImportError:
        return _MISSING
    config = getattr(faiss, "SIMDConfig", None)
    options = str(faiss.get_compile_options()).strip()
    return f"{config.get_level_name()} (built with {options})" if config else options


def cpu_flags() -> frozenset[str]:
    """Return what /proc/cpuinfo says that the CPU can do."""
    return frozenset(_cpu_field("flags").split())


def _cpu_model() -> str:
    return _cpu_field("model name") or platform.processor() or "unknown CPU"


def _cpu_field(name: str) -> str:
    file = Path("/proc/cpuinfo")
    text = file.read_text() if file.exists() else ""
    found = re.search(rf"^{name}\s*: (.+)$", text, re.MULTILINE)
    return found[1].strip() if found else ""


def _package_version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return _MISSING


def _program_version(find: Any, option: str) -> str:
    try:
        program = find()
    except ProgramError:
        return _MISSING
    # `mosquitto -h` prints its version and ends with status 3.
    printed = subprocess.run([program, option], capture_output=True, text=True, check=False).stdout
    found = re.search(r"version v?([\d.]+)", printed)
    return found[1] if found else "unknown"
