"""State how many searches find the row that an exact search finds."""

from dataclasses import dataclass

from benchmarks.stats import Row
from broker_bridge.vectors.index import VectorIndex

from .queries import Queries

_RECALL = 0.999


@dataclass(frozen=True)
class SearchRow(Row):
    """A row with recall@1 per kind of query.

    For strangers it is the share without a match.
    """

    recalls: tuple[tuple[str, float], ...] = ()

    @property
    def holds(self) -> bool:
        return super().holds and all(recall >= _RECALL for _, recall in self.recalls)

    @property
    def must(self) -> str:
        kind, worst = min(self.recalls, key=lambda one: one[1])
        found = "recall@1 1" if worst == 1 else f"recall@1 {worst:.4g} ({kind})"
        return f"{found}, {super().must or ('holds' if self.holds else 'MISSED')}"


def measure_recall(index: VectorIndex, queries: Queries, floor: float) -> float:
    """Return the share of `queries` that found their own row.

    For strangers: the share without a row at the floor or above.
    """
    right = 0
    for answer, row in zip(index.search(queries.vectors, floor), queries.rows.tolist(), strict=True):
        if row < 0:
            right += answer is not None and answer.similarity < floor
        else:
            right += answer is not None and answer.key == str(row)
    return right / len(queries.rows)
