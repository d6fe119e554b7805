"""How well people were followed: the identity metrics of multi-object tracking, and mix-ups counted plainly.

IDF1 is that of Ristani et al. 2016 (arXiv 1609.01775), switches and fragmentations are CLEAR MOT's; all of
them as motmetrics counts them, over all cameras together. What is detected is given, so only whose it is can
be wrong: each observation may be matched with its own answer and with no other.
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
    """`merged`: global ids that two people or more were given most of the time. `mixed`: those that were
    given to two people or more at all. `reused`: those of them whose people do not even look alike. `split`:
    people with more than one id. `switches` and `fragmentations` are motmetrics'; the latter count answers
    that were missing in between."""

    observations: int
    answered: int
    people: int
    ids: int
    idf1: float
    switches: int
    fragmentations: int
    merged: int
    mixed: int
    reused: int
    split: int


class TrackingTally:
    """Collects what was answered to whose observation. `kin` is equal for people who look alike."""

    def __init__(self, kin: Callable[[int], int]) -> None:
        self._kin = kin
        self._people = array("q")
        self._cameras = array("q")
        self._seconds = array("q")
        self._ids = array("q")

    def add(self, *, person: int, camera: int, at: float, global_id: int | None) -> None:
        """Count an observation of `person`, `at` seconds since the start; no `global_id`: not answered."""
        self._people.append(person)
        self._cameras.append(camera)
        self._seconds.append(int(at))
        self._ids.append(_UNANSWERED if global_id is None else global_id)

    def __len__(self) -> int:
        return len(self._people)

    def score(self) -> TrackingScore:
        """The score of all that was added. Takes a minute for some 300,000 observations."""
        given: dict[int, Counter[int]] = defaultdict(Counter)
        for person, global_id in zip(self._people, self._ids, strict=True):
            if global_id != _UNANSWERED:
                given[global_id][person] += 1
        idf1, switches, fragmentations = self._by_motmetrics()
        mixed = [people for people in given.values() if len(people) > 1]
        ids_of = Counter(person for people in given.values() for person in people)
        return TrackingScore(
            observations=len(self),
            answered=sum(people.total() for people in given.values()),
            people=len(set(self._people)),
            ids=len(given),
            idf1=idf1,
            switches=switches,
            fragmentations=fragmentations,
            merged=_count_merged(given),
            mixed=len(mixed),
            reused=sum(len({self._kin(person) for person in people}) > 1 for people in mixed),
            split=sum(count > 1 for count in ids_of.values()),
        )

    def _by_motmetrics(self) -> tuple[float, int, int]:
        if not len(self):
            return 0.0, 0, 0
        accumulator = motmetrics.MOTAccumulator(auto_id=True)
        for people, ids in self._frames():
            answered = ids != _UNANSWERED
            distances = np.where(np.eye(len(ids), dtype=bool)[:, answered], 0.0, np.nan)
            accumulator.update(people, ids[answered], distances)
        summary = motmetrics.metrics.create().compute(accumulator, metrics=_METRICS)
        idf1, switches, fragmentations = (summary[name].iloc[0] for name in _METRICS)
        return float(idf1), int(switches), int(fragmentations)

    def _frames(self) -> Iterator[tuple[Integers, Integers]]:
        """What one camera saw in one second: people and ids, in order of time."""
        columns = (self._people, self._ids, self._cameras, self._seconds)
        people, ids, cameras, seconds = (np.array(column, dtype=np.int64) for column in columns)
        order = np.lexsort((cameras, seconds))
        places = np.stack([cameras[order], seconds[order]])
        borders = np.flatnonzero((np.diff(places) != 0).any(axis=0)) + 1
        for rows in np.split(order, borders):
            yield people[rows], ids[rows]


def _count_merged(given: dict[int, Counter[int]]) -> int:
    main: dict[int, tuple[int, int]] = {}
    for global_id, people in given.items():
        for person, count in people.items():
            main[person] = max(main.get(person, (0, 0)), (count, global_id))
    owners = Counter(global_id for _, global_id in main.values())
    return sum(count > 1 for count in owners.values())
