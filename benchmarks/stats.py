"""Latencies, and the table that prints them.

A group returns rows; what could not be measured here is a `Note`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Latency:
    """Milliseconds over `count` samples."""

    count: int
    p50: float
    p99: float
    worst: float

    @classmethod
    def from_seconds(cls, seconds: Sequence[float]) -> "Latency":
        """Return the nearest-rank percentiles of `seconds`, in milliseconds."""
        ranked = sorted(seconds)

        def at(share: float) -> float:
            return ranked[min(len(ranked) - 1, int(share * len(ranked)))] * 1000

        return cls(len(ranked), at(0.5), at(0.99), ranked[-1] * 1000)


@dataclass(frozen=True)
class Row:
    """One line of the table with its requirements.

    `limit` bounds the p99 and `p50_limit` the median, both in milliseconds. `at_most` bounds the ratio of the
    median to that of `bare` (0.5: twice as fast).
    """

    name: str
    latency: Latency
    limit: float | None = None
    bare: Latency | None = None
    p50_limit: float | None = None
    at_most: float | None = None

    @property
    def ratio(self) -> float | None:
        return self.latency.p50 / self.bare.p50 if self.bare else None

    @property
    def holds(self) -> bool:
        return (
            (self.limit is None or self.latency.p99 < self.limit)
            and (self.p50_limit is None or self.latency.p50 < self.p50_limit)
            and (self.at_most is None or self.ratio is None or self.ratio <= self.at_most)
        )

    @property
    def must(self) -> str:
        """The requirements, and whether they hold."""
        musts = [
            "" if self.limit is None else f"p99 < {self.limit:g}",
            "" if self.p50_limit is None else f"p50 < {self.p50_limit:g}",
            "" if self.at_most is None else f"ratio <= {self.at_most:.2g}",
        ]
        text = ", ".join(must for must in musts if must)
        return f"{text}  {'holds' if self.holds else 'MISSED'}" if text else ""


@dataclass(frozen=True)
class FailedRow(Row):
    """A group that ended with an error instead of rows."""

    reason: str = ""

    @classmethod
    def of(cls, group: str, error: Exception) -> "FailedRow":
        lines = str(error).strip().splitlines()
        first = lines[0] if lines else "no message"
        return cls(f"{group}: failed", Latency(0, 0, 0, 0), reason=f"{type(error).__name__}: {first}"[:200])

    @property
    def holds(self) -> bool:
        return False

    @property
    def must(self) -> str:
        return self.reason


@dataclass(frozen=True)
class Note:
    """A sentence below the table about what was not measured."""

    text: str


def show(title: str, results: Sequence[Row | Note]) -> None:
    """Print rows, then notes.

    A ratio is of the median to that of the bare steps below it.
    """
    table = Table(title=title, title_justify="left")
    for heading in ("what", "samples", "p50 ms", "p99 ms", "worst ms", "must", "ratio to bare"):
        table.add_column(heading, justify="left" if heading == "what" else "right", no_wrap=True)
    for row in (one for one in results if isinstance(one, Row)):
        ratio = "" if row.ratio is None else f"{row.ratio:.2g}x"
        latency = row.latency
        table.add_row(
            row.name,
            str(latency.count or ""),
            *(format_ms(each) if latency.count else "" for each in (latency.p50, latency.p99, latency.worst)),
            row.must,
            ratio,
        )
    console = Console(width=190)
    console.print(table)
    for one in results:
        if isinstance(one, Note):
            console.print(f"{one.text}.")


def format_ms(value: float) -> str:
    """Return milliseconds with as many digits as mean something."""
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
