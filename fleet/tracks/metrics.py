"""Score a tracker by multi-object tracking metrics and counts of mix-ups.

IDF1 follows Ristani et al. 2016 (arXiv 1609.01775), switches and fragmentations follow CLEAR MOT; motmetrics
counts them over all cameras together. Detections are given, so only the global id of an observation can be
wrong: an observation matches its own answer and no other.
"""

from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import motmetrics
import numpy as np
from numpy.typing import NDArray

_UNANSWERED = -1
_METRICS = ["idf1", "num_switches", "num_fragmentations"]

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class TrackingScore:
    """The metrics of one run.

    `merged`: global ids that are the most frequent id of two or more walkers. `mixed`: global ids that two or
    more walkers had at least once. `reused`: mixed ids of walkers that do not look alike. `split`: walkers
    with more than one id. `switches` and `fragmentations` come from motmetrics; missing answers count as
    fragmentations.
    """

    observations: int
    answered: int
    walkers: int
    ids: int
    idf1: float
    switches: int
    fragmentations: int
    merged: int
    mixed: int
    reused: int
    split: int


class TrackingTally:
    """Collect the answer to each observation.

    `group_of` is equal for walkers that look alike.
    """

    def __init__(self, group_of: Callable[[int], int]) -> None:
        self._group_of = group_of
        self._walkers = array("q")
        self._cameras = array("q")
        self._seconds = array("q")
        self._ids = array("q")

    def add(self, *, walker: int, camera: int, at: float, global_id: int | None) -> None:
        """Count an observation of `walker` at `at` seconds.

        `global_id` is None if it has no answer.
        """
        self._walkers.append(walker)
        self._cameras.append(camera)
        self._seconds.append(int(at))
        self._ids.append(_UNANSWERED if global_id is None else global_id)

    def __len__(self) -> int:
        return len(self._walkers)

    def score(self) -> TrackingScore:
        """Return the score of all observations. Takes a minute for some 300,000."""
        given: dict[int, Counter[int]] = defaultdict(Counter)
        for walker, global_id in zip(self._walkers, self._ids, strict=True):
            if global_id != _UNANSWERED:
                given[global_id][walker] += 1
        idf1, switches, fragmentations = self._by_motmetrics()
        mixed = [walkers for walkers in given.values() if len(walkers) > 1]
        ids_of = Counter(walker for walkers in given.values() for walker in walkers)
        return TrackingScore(
            observations=len(self),
            answered=sum(walkers.total() for walkers in given.values()),
            walkers=len(set(self._walkers)),
            ids=len(given),
            idf1=idf1,
            switches=switches,
            fragmentations=fragmentations,
            merged=_count_merged(given),
            mixed=len(mixed),
            reused=sum(len({self._group_of(walker) for walker in walkers}) > 1 for walkers in mixed),
            split=sum(count > 1 for count in ids_of.values()),
        )

    def _by_motmetrics(self) -> tuple[float, int, int]:
        if not len(self):
            return 0.0, 0, 0
        accumulator = motmetrics.MOTAccumulator(auto_id=True)
        for walkers, ids in self._frames():
            answered = ids != _UNANSWERED
            distances = np.where(np.eye(len(ids), dtype=bool)[:, answered], 0.0, np.nan)
            accumulator.update(walkers, ids[answered], distances)
        summary = motmetrics.metrics.create().compute(accumulator, metrics=_METRICS)
        idf1, switches, fragmentations = (summary[name].iloc[0] for name in _METRICS)
        return float(idf1), int(switches), int(fragmentations)

    def _frames(self) -> Iterator[tuple[Integers, Integers]]:
        """Yield walkers and global ids of each second of each camera, by time."""
        columns = (self._walkers, self._ids, self._cameras, self._seconds)
        walkers, ids, cameras, seconds = (np.array(column, dtype=np.int64) for column in columns)
        order = np.lexsort((cameras, seconds))
        keys = np.stack([cameras[order], seconds[order]])
        borders = np.flatnonzero((np.diff(keys) != 0).any(axis=0)) + 1
        for rows in np.split(order, borders):
            yield walkers[rows], ids[rows]


def _count_merged(given: dict[int, Counter[int]]) -> int:
    main: dict[int, tuple[int, int]] = {}
    for global_id, walkers in given.items():
        for walker, count in walkers.items():
            main[walker] = max(main.get(walker, (0, 0)), (count, global_id))
    owners = Counter(global_id for _, global_id in main.values())
    return sum(count > 1 for count in owners.values())
