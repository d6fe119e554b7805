"""Let the tracker follow people through clips of photographs."""

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone

import numpy as np

from broker_bridge.contract.default_space import DEFAULT_FACE_SPACE
from broker_bridge.contract.embeddings import Vector
from broker_bridge.registry.detected_persons.centroid import FaceCentroid
from broker_bridge.registry.detected_persons.model import Box, DetectedPerson, ObservedFace
from broker_bridge.registry.detected_persons.settings import TrackingSettings
from broker_bridge.tracking.active_person import ActivePerson
from broker_bridge.tracking.active_set import ActiveSet
from broker_bridge.tracking.match_rules import TrackMatch
from tests.space_limits import tracked_limits

# The next clip begins when the place of the last one is forgotten.
_EVERY, _PAUSE = timedelta(seconds=0.5), timedelta(minutes=1)
_BEGAN = datetime(2026, 1, 1, tzinfo=timezone.utc)
_BOX = Box(240, 160, 150, 150)


@dataclass(frozen=True)
class ObservedClip:
    """What a camera observes of a person that walks past.

    `vectors` are float32[d] in the built-in space.
    """

    subject: int
    vectors: Sequence[Vector]


@dataclass
class ClipTracking:
    """The tracker's answers to clips of one camera; `seconds` has the time of each."""

    clips: Sequence[ObservedClip]
    seconds: list[float] = field(default_factory=list)

    def track(self, order: Sequence[int]) -> tuple[float, int]:
        """Return the share of pairs of a person's clips with one id, and merged ids.

        Two clips agree as far as their observations do. A merged id is that of several people.
        """
        limits = DEFAULT_FACE_SPACE.limits
        assert limits is not None
        settings = TrackingSettings()
        active = ActiveSet(settings, tracked_limits(DEFAULT_FACE_SPACE.space, limits, settings))
        ids: dict[int, list[int]] = {}
        for place, row in enumerate(order):
            began = _BEGAN + _PAUSE * place
            ids[row] = [
                self._assign(active, _observe(vector, row, began + _EVERY * index))
                for index, vector in enumerate(self.clips[row].vectors)
            ]
        subjects: dict[int, set[int]] = {}
        for row, given in ids.items():
            for global_id in given:
                subjects.setdefault(global_id, set()).add(self.clips[row].subject)
        agree = [
            float(np.mean([one == other for one in ids[first] for other in ids[second]]))
            for first, second in itertools.combinations(ids, 2)
            if self.clips[first].subject == self.clips[second].subject
        ]
        return float(np.mean(agree)), sum(len(people) > 1 for people in subjects.values())

    def _assign(self, active: ActiveSet, observed: ObservedFace) -> int:
        began = time.perf_counter()
        match = active.match(observed)
        if match is None:
            centroid = FaceCentroid.from_vector(observed.space, observed.vector, observed.quality)
            record = DetectedPerson.create(len(active) + 1, observed)
            person = ActivePerson(record, {observed.space: centroid})
            active.add(person)
            match = TrackMatch(person, None, "new")
        active.record_sighting(match, observed)
        self.seconds.append(time.perf_counter() - began)
        return match.active.global_id


def _observe(vector: Vector, clip: int, at: datetime) -> ObservedFace:
    return ObservedFace(
        device_id="cam-001",
        site_id="bench",
        track_id=f"clip-{clip}",
        box=_BOX,
        space=DEFAULT_FACE_SPACE.space,
        vector=vector,
        quality=0.9,
        captured_at=at,
        seen_at=at,
    )
