"""RESULTS.md says what ran where, and since when a row is missed."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.progress import Progress

from benchmarks.__main__ import measure_group
from benchmarks.report.machine import describe_machine, judge_kernel, name_kernel
from benchmarks.report.record import read_sections, write_record
from benchmarks.scale import SHORT
from benchmarks.stats import FailedRow, Latency, Note, Row, show

MACHINE = {"machine": "x86_64, a CPU, 2 cores", "BLAS of numpy": "openblas 0.3.31, kernel Haswell, 2 threads"}


def timed(name: str, milliseconds: float, *, limit: float | None = 100.0) -> Row:
    return Row(name, Latency(7, milliseconds, milliseconds, milliseconds), limit)


def line_of(file: Path, name: str) -> str:
    """Return the line of a row."""
    return next(line for line in file.read_text().splitlines() if line.startswith(f"| {name}"))


def record(file: Path, date: str, rows: Sequence[Row | Note], group: str = "sync") -> None:
    write_record(file, MACHINE, {group: rows}, date)


def test_a_record_names_the_machine_and_each_row(tmp_path: Path) -> None:
    """A row has its samples, times, ratio, requirement and state; a note stands below."""
    file = tmp_path / "RESULTS.md"
    bare = timed("  bare copy", 10, limit=None)
    ours = Row("cold sync", Latency(7, 12.5, 13, 14), bare=bare.latency, at_most=1.5)
    record(file, "2026-12-01", [ours, bare, Note("pgvector: not here")])
    text = file.read_text()
    assert "| BLAS of numpy | openblas 0.3.31, kernel Haswell, 2 threads |" in text
    assert line_of(file, "cold sync") == (
        "| cold sync | 7 | 12.5 | 13.0 | 14.0 | 1.2x | ratio <= 1.5 | holds |"
    )
    assert line_of(file, "bare copy") == "| bare copy | 7 | 10.0 | 10.0 | 10.0 |  |  |  |"
    assert "\npgvector: not here." in text


def test_a_row_that_stays_missed_keeps_its_first_date(tmp_path: Path) -> None:
    """The date of the first record that missed it stays until it holds again."""
    file = tmp_path / "RESULTS.md"
    record(file, "2026-11-01", [timed("cold sync", 50)])
    record(file, "2026-11-15", [timed("cold sync", 500)])
    record(file, "2026-12-01", [timed("cold sync", 400)])
    assert line_of(file, "cold sync").endswith("| **missed since 2026-11-15** |")
    record(file, "2026-12-05", [timed("cold sync", 50)])
    assert line_of(file, "cold sync").endswith("| holds |")
    record(file, "2026-12-09", [timed("cold sync", 500)])
    assert line_of(file, "cold sync").endswith("| **missed since 2026-12-09** |")


def test_figures_in_a_name_do_not_change_the_row(tmp_path: Path) -> None:
    """Rows whose names differ in figures only are told apart by their order."""
    file = tmp_path / "RESULTS.md"
    record(file, "2026-11-01", [timed("search 10,000", 500), timed("search 100,000 (53% of a core)", 50)])
    record(file, "2026-12-01", [timed("search 10,000", 500), timed("search 100,000 (61% of a core)", 500)])
    assert line_of(file, "search 10,000").endswith("| **missed since 2026-11-01** |")
    assert line_of(file, "search 100,000").endswith("| **missed since 2026-12-01** |")


def test_a_run_of_one_group_keeps_the_sections_of_others(tmp_path: Path) -> None:
    """Each section has the date of its own run."""
    file = tmp_path / "RESULTS.md"
    record(file, "2026-11-01", [timed("cold sync", 500)])
    record(file, "2026-12-01", [timed("event", 50)], group="line")
    assert [(one.group, one.date) for one in read_sections(file)] == [
        ("sync", "2026-11-01"),
        ("line", "2026-12-01"),
    ]
    assert line_of(file, "cold sync").endswith("| **missed since 2026-11-01** |")


def test_a_name_with_a_bar_does_not_break_the_table(tmp_path: Path) -> None:
    """A bar is escaped, and the row is the same one in the next record."""
    file = tmp_path / "RESULTS.md"
    record(file, "2026-11-01", [timed("a | b", 500)])
    record(file, "2026-12-01", [timed("a | b", 500)])
    assert line_of(file, "a \\| b").endswith("| **missed since 2026-11-01** |")


def test_a_group_that_fails_is_a_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It does not hold, its row says why and has no times, and the trace is printed."""

    def measure(*_: object) -> list[Row]:
        raise RuntimeError("mongod does not start\nmany lines of its log")

    with Progress(disable=True) as progress:
        rows = measure_group(measure, "line", tmp_path, progress, SHORT)
    assert [row.must for row in rows if isinstance(row, FailedRow)] == ["RuntimeError: mongod does not start"]
    assert not any(isinstance(row, Row) and row.holds for row in rows)
    assert "many lines of its log" in capsys.readouterr().err
    show("benchmarks", rows)
    assert "0.00" not in capsys.readouterr().out
    file = tmp_path / "RESULTS.md"
    record(file, "2026-12-01", rows, group="line")
    assert line_of(file, "line: failed").endswith(
        "| RuntimeError: mongod does not start | **missed since 2026-12-01** |"
    )


def test_the_kernel_is_that_of_numpy() -> None:
    """FAISS and OpenCV bring a BLAS of their own, which multiplies nothing of numpy's."""
    common = {"user_api": "blas", "internal_api": "openblas", "num_threads": 2}
    libraries = [
        {"user_api": "openmp", "internal_api": "openmp", "filepath": "/faiss_cpu.libs/libgomp.so"},
        common | {"filepath": "/faiss_cpu.libs/libopenblas.so", "version": "0.3.15", "architecture": "Zen"},
        common | {"filepath": "/opencv.libs/libopenblas.so", "version": "0.3.15", "architecture": "Zen"},
        common | {"filepath": "/numpy.libs/libopenblas.so", "version": "0.3.31", "architecture": "Haswell"},
    ]
    assert name_kernel(libraries) == "openblas 0.3.31, kernel Haswell, 2 threads"
    system = [common | {"filepath": "/usr/lib/libopenblas.so.0", "version": "0.3.21", "architecture": "Zen"}]
    assert name_kernel([*libraries[:-1], *system]) == "openblas 0.3.21, kernel Zen, 2 threads"


@pytest.mark.parametrize(
    ("kernel", "flags", "warned"),
    [
        ("Haswell", {"avx2"}, False),
        ("Zen", {"avx2"}, False),
        ("SkylakeX", {"avx2", "avx512f"}, False),
        ("Haswell", {"avx2", "avx512f"}, True),
        ("Nehalem", {"avx2"}, True),
        ("armv8", set(), False),
    ],
)
def test_an_old_kernel_is_said(kernel: str, flags: set[str], warned: bool) -> None:
    """A kernel that leaves the CPU's vectors unused makes our ratios too good."""
    told = judge_kernel(f"openblas 0.3.31, kernel {kernel}, 2 threads", frozenset(flags))
    assert bool(told) is warned


def test_the_machine_is_described_from_what_is_here() -> None:
    """The servers and libraries of this machine have versions."""
    facts = describe_machine()
    versions = [facts[name].partition(".")[0] for name in ("Python", "Mosquitto", "MongoDB", "numpy")]
    assert all(each.isdigit() for each in versions), facts
    assert "cores" in facts["machine"]
