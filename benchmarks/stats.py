"""Latencies and the table that they are printed in."""

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
    def of(cls, seconds: Sequence[float]) -> "Latency":
        """Nearest-rank percentiles."""
        ranked = sorted(seconds)

        def at(share: float) -> float:
            return ranked[min(len(ranked) - 1, int(share * len(ranked)))] * 1000

        return cls(len(ranked), at(0.5), at(0.99), ranked[-1] * 1000)


@dataclass(frozen=True)
class Row:
    """One line of the table. `limit` is the p99 that must hold, in milliseconds."""

    name: str
    latency: Latency
    limit: float | None = None
    bare: Latency | None = None

    @property
    def holds(self) -> bool:
        return self.limit is None or self.latency.p99 < self.limit


def show(title: str, rows: Sequence[Row]) -> None:
    """Print `rows`; a ratio is of medians, ours to the bare steps below it together."""
    table = Table(title=title, title_justify="left")
    for heading in ("what", "samples", "p50 ms", "p99 ms", "worst ms", "must", "ratio to bare"):
        table.add_column(heading, justify="left" if heading == "what" else "right", no_wrap=True)
    for row in rows:
        must = "" if row.limit is None else f"p99 < {row.limit:g}  {'holds' if row.holds else 'MISSED'}"
        ratio = f"{row.latency.p50 / row.bare.p50:.1f}x" if row.bare else ""
        one = row.latency
        table.add_row(
            row.name, str(one.count), f"{one.p50:.1f}", f"{one.p99:.1f}", f"{one.worst:.1f}", must, ratio
        )
    Console(width=140).print(table)
