"""What recorded scores would have become under other settings. No picture is needed, and none is there."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from broker_bridge.common.clock import utc_now
from broker_bridge.contract.ids import EVENT_CODES
from broker_bridge.contract.messages import Event
from device.events.decision import VALIDATOR_REASONS, EventDecision
from device.events.event_validator import EventValidator

from .format import FaceScore, FrameScores, RecordedSettings, Recording

# The distance of a face that was compared with nobody: as far as two vectors can be.
_FARTHEST = 2.0


@dataclass(frozen=True)
class SeenEvent:
    """An event of a recording or a replay: `run` and `frame` say where, `seconds` is that run's monotonic
    time, `distance` the mean cosine distance that it was made of (None: nobody was near, or not recorded)."""

    run: int
    frame: int
    seconds: float
    at: datetime
    track_id: str
    user_id: str | None
    event_type: str
    distance: float | None = field(default=None, compare=False)


@dataclass
class ReplayOutcome:
    """What came of all faces under one set of settings."""

    events: list[SeenEvent] = field(default_factory=list)
    refusals: Counter[str] = field(default_factory=Counter)


@dataclass
class Replay:
    """`recorded` is what the device decided, `before` what replaying under its own settings gives, `after`
    what the changed ones give. `begins_late` counts runs whose first files are gone: there the first
    decisions may differ from the recorded ones, for want of what was seen before."""

    recorded: ReplayOutcome = field(default_factory=ReplayOutcome)
    before: ReplayOutcome = field(default_factory=ReplayOutcome)
    after: ReplayOutcome = field(default_factory=ReplayOutcome)
    frames: int = 0
    faces: int = 0
    begins_late: int = 0


@dataclass(frozen=True)
class EventChange:
    """One event in both runs (`stays`), or in only one of them."""

    kind: Literal["stays", "new", "vanishes"]
    before: SeenEvent | None
    after: SeenEvent | None

    @property
    def event(self) -> SeenEvent:
        """The event as it is, or was before it vanished."""
        found = self.after or self.before
        if found is None:
            raise ValueError("a change is of an event")
        return found


class _Judge:
    """A validator whose clock stands at the frame that is replayed."""

    def __init__(self, settings: RecordedSettings, outcome: ReplayOutcome) -> None:
        self._outcome = outcome
        self._seconds = 0.0
        self._at = utc_now()
        self._validator = EventValidator(
            settings.device_id,
            settings.confirmation_frames,
            settings.consistency_threshold,
            settings.cooldown_seconds,
            settings.distance_threshold,
            settings.max_track_age_seconds,
            min_margin=settings.min_margin,
            unknown_events=settings.unknown_events,
            clock=lambda: self._seconds,
            wall_clock=lambda: self._at,
        )

    def judge(self, run: int, frame: FrameScores) -> None:
        self._seconds, self._at = frame.captured_at, frame.wall_time
        for face in frame.faces:
            decision = self._decide(frame, face)
            if decision.event is not None:
                self._outcome.events.append(_seen(run, frame, face, decision.event))
            elif decision.reason is not None:
                self._outcome.refusals[decision.reason] += 1

    def _decide(self, frame: FrameScores, face: FaceScore) -> EventDecision:
        # A number that was none is recorded as null; without a person there was nothing to measure.
        missing = _FARTHEST if face.user_id is None else float("nan")
        return self._validator.decide(
            face.track_id,
            face.user_id,
            missing if face.distance is None else face.distance,
            frame.index,
            suppressed_reason=face.refusal if face.refusal not in VALIDATOR_REASONS else None,
            margin=missing if face.margin is None else face.margin,
        )


def replay(
    recordings: Sequence[Recording],
    changes: dict[str, Any],
    on_bytes: Callable[[int], object] = lambda _: None,
) -> Replay:
    """Judge all faces of `recordings` (oldest first) again, as recorded and with `changes` (by the names of
    RecordedSettings). Raises RecordingError when a file cannot be read."""
    result = Replay()
    before = after = None
    last: tuple[int, int] | None = None
    for recording in recordings:
        header = recording.header
        if before is None or after is None or last != (header.run, header.part - 1):
            before = _Judge(header.settings, result.before)
            after = _Judge(header.settings.model_copy(update=changes), result.after)
            result.begins_late += header.part > 1
        last = (header.run, header.part)
        for frame in recording.frames(on_bytes):
            result.frames += 1
            result.faces += len(frame.faces)
            _tell(result.recorded, header.run, frame)
            before.judge(header.run, frame)
            after.judge(header.run, frame)
    return result


def compare(before: Sequence[SeenEvent], after: Sequence[SeenEvent]) -> list[EventChange]:
    """What became of each event, in the order of time.

    Two events are the same one, earlier or later, if they are of one person on one track and each is the
    other's nearest in time.
    """
    groups: dict[tuple[int, str, str | None, str], tuple[list[SeenEvent], list[SeenEvent]]] = {}
    for side, events in enumerate((before, after)):
        for event in events:
            key = (event.run, event.track_id, event.user_id, event.event_type)
            groups.setdefault(key, ([], []))[side].append(event)
    changes = [change for old, new in groups.values() for change in _paired(old, new)]
    return sorted(changes, key=lambda change: (change.event.run, change.event.frame, change.event.track_id))


def _paired(before: list[SeenEvent], after: list[SeenEvent]) -> list[EventChange]:
    old_times, new_times = ([event.seconds for event in events] for events in (before, after))
    pairs = {
        place: nearest
        for place, seconds in enumerate(old_times)
        if (nearest := _nearest(new_times, seconds)) is not None
        and _nearest(old_times, new_times[nearest]) == place
    }
    kept = set(pairs.values())
    return [
        *(EventChange("stays", before[old], after[new]) for old, new in pairs.items()),
        *(EventChange("vanishes", event, None) for place, event in enumerate(before) if place not in pairs),
        *(EventChange("new", None, event) for place, event in enumerate(after) if place not in kept),
    ]


def _nearest(times: list[float], seconds: float) -> int | None:
    """The place of the value nearest to `seconds` in the rising `times`, the earlier of two; None: empty."""
    if not times:
        return None
    right = bisect_left(times, seconds)
    if right == 0:
        return 0
    if right < len(times) and times[right] - seconds < seconds - times[right - 1]:
        return right
    return right - 1


def _seen(run: int, frame: FrameScores, face: FaceScore, event: Event | None) -> SeenEvent:
    """`face` as the event that was made of it, or that was recorded of it (None)."""
    unknown = face.event_id is not None and face.event_id.startswith(EVENT_CODES["unknown"] + "-")
    event_type = event.event_type if event else "unknown" if unknown else "facial_id"
    distance = event.metadata.get("distance") if event else None
    return SeenEvent(
        run,
        frame.index,
        frame.captured_at,
        frame.wall_time,
        face.track_id,
        None if event_type == "unknown" else face.user_id,
        event_type,
        distance if isinstance(distance, float) else None,
    )


def _tell(outcome: ReplayOutcome, run: int, frame: FrameScores) -> None:
    """Add what the device itself decided in `frame`."""
    for face in frame.faces:
        if face.event_id is not None:
            outcome.events.append(_seen(run, frame, face, None))
        elif face.refusal is not None:
            outcome.refusals[face.refusal] += 1
