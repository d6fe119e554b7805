"""Replay recorded scores under other settings, without any image."""

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
from device.events.match_limits import MatchLimits

from .format import FaceScore, FrameScores, RecordedSettings, Recording

# Cosine distance of a face that was not compared: as far apart as two vectors can be.
_FARTHEST = 2.0


@dataclass(frozen=True)
class SeenEvent:
    """An event of a recording or a replay, located by `run` and `frame`.

    `seconds` is the run's monotonic time. `distance` is the mean cosine distance of its frames, None if it
    has no match or was not recorded.
    """

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
    """Events, and counts of reasons for none, under one set of settings."""

    events: list[SeenEvent] = field(default_factory=list)
    refusals: Counter[str] = field(default_factory=Counter)


@dataclass
class Replay:
    """Outcomes of a replay.

    `recorded` has the device's own decisions, `before` those of a replay under its settings, `after` those
    under the changed settings. `begins_late` counts runs without their first files: there the first decisions
    may differ from the recorded ones, since earlier frames are missing.
    """

    recorded: ReplayOutcome = field(default_factory=ReplayOutcome)
    before: ReplayOutcome = field(default_factory=ReplayOutcome)
    after: ReplayOutcome = field(default_factory=ReplayOutcome)
    frames: int = 0
    faces: int = 0
    begins_late: int = 0


@dataclass(frozen=True)
class EventChange:
    """One event in both outcomes (`stays`), or in only one of them."""

    kind: Literal["stays", "new", "vanishes"]
    before: SeenEvent | None
    after: SeenEvent | None

    @property
    def event(self) -> SeenEvent:
        """The event after the change, else the one before."""
        found = self.after or self.before
        if found is None:
            raise ValueError("expected an event before or after the change, got neither")
        return found


class _ReplayValidator:
    """A validator with its clock set to the replayed frame."""

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

    def use_limits_of(self, settings: RecordedSettings) -> None:
        """Use the limits of a file that continues the run."""
        self._validator.change_limits(MatchLimits(settings.distance_threshold, settings.min_margin))

    def decide_frame(self, run: int, frame: FrameScores) -> None:
        self._seconds, self._at = frame.captured_at, frame.wall_time
        for face in frame.faces:
            decision = self._decide(frame, face)
            if decision.event is not None:
                self._outcome.events.append(_seen(run, frame, face, decision.event))
            elif decision.reason is not None:
                self._outcome.refusals[decision.reason] += 1

    def _decide(self, frame: FrameScores, face: FaceScore) -> EventDecision:
        # NaN is recorded as null; a face without an identity was not compared.
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
    """Decide all faces again, under the recorded and the changed settings.

    `recordings` are oldest first, `changes` are by the names of RecordedSettings. Raises RecordingError when
    a file cannot be read.
    """
    result = Replay()
    before = after = None
    last: tuple[int, int] | None = None
    for recording in recordings:
        header = recording.header
        if before is None or after is None or last != (header.run, header.part - 1):
            before = _ReplayValidator(header.settings, result.before)
            after = _ReplayValidator(header.settings.model_copy(update=changes), result.after)
            result.begins_late += header.part > 1
        else:
            before.use_limits_of(header.settings)
            after.use_limits_of(header.settings.model_copy(update=changes))
        last = (header.run, header.part)
        for frame in recording.frames(on_bytes):
            result.frames += 1
            result.faces += len(frame.faces)
            _add_recorded(result.recorded, header.run, frame)
            before.decide_frame(header.run, frame)
            after.decide_frame(header.run, frame)
    return result


def compare(before: Sequence[SeenEvent], after: Sequence[SeenEvent]) -> list[EventChange]:
    """Return the change of each event, in order of time.

    Two events count as the same if they have one identity and one track, and each is the other's nearest in
    time.
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
        position: nearest
        for position, seconds in enumerate(old_times)
        if (nearest := _nearest(new_times, seconds)) is not None
        and _nearest(old_times, new_times[nearest]) == position
    }
    kept = set(pairs.values())
    return [
        *(EventChange("stays", before[old], after[new]) for old, new in pairs.items()),
        *(
            EventChange("vanishes", event, None)
            for position, event in enumerate(before)
            if position not in pairs
        ),
        *(EventChange("new", None, event) for position, event in enumerate(after) if position not in kept),
    ]


def _nearest(times: list[float], seconds: float) -> int | None:
    """Return the index of the value in sorted `times` that is nearest to `seconds`.

    Of two equally near values the earlier one counts. None for empty `times`.
    """
    if not times:
        return None
    right = bisect_left(times, seconds)
    if right == 0:
        return 0
    if right < len(times) and times[right] - seconds < seconds - times[right - 1]:
        return right
    return right - 1


def _seen(run: int, frame: FrameScores, face: FaceScore, event: Event | None) -> SeenEvent:
    """Return the event of `face`: `event`, or the recorded one if that is None."""
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


def _add_recorded(outcome: ReplayOutcome, run: int, frame: FrameScores) -> None:
    """Add the device's own decisions in `frame`."""
    for face in frame.faces:
        if face.event_id is not None:
            outcome.events.append(_seen(run, frame, face, None))
        elif face.refusal is not None:
            outcome.refusals[face.refusal] += 1
