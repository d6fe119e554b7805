"""From recognitions to events: what was seen long enough, surely enough, and not just now (seed 003)."""

import math
import secrets
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal

from pydantic import JsonValue

from broker_bridge.common.clock import utc_now
from broker_bridge.contract.ids import EVENT_CODES, new_event_id
from broker_bridge.contract.messages import Event
from device.timing.expiring import ExpiringMap

from .decision import (
    BELOW_THRESHOLD,
    COOLDOWN,
    INCONSISTENT_TRACK,
    LOW_MARGIN,
    NO_MATCH,
    REPEATED_FRAME,
    UNCONFIRMED,
    EventDecision,
)

# Reasons of a single frame that say: this is nobody we know.
_NOBODY: Final = frozenset({NO_MATCH, BELOW_THRESHOLD})


@dataclass(frozen=True)
class _Recognition:
    """One frame of a track: a person, or None with the reason."""

    user_id: str | None
    reason: str | None
    distance: float
    margin: float | None


@dataclass
class _RecognitionTrack:
    window: deque[_Recognition]
    last_frame_id: int
    judged_at: float
    frames: int = field(default=0)
    is_told: bool = field(default=False)
    """Whether the track has been somebody, or was reported as unknown."""


class EventValidator:
    """Decides which recognition becomes an event.

    A track's last `confirmation_frames` frames are its window. A full window with at least
    `consistency_threshold` of its frames on the person of the newest frame is an event, unless that person
    had one less than `cooldown_seconds` ago (on any track). Frames without a match, past
    `distance_threshold` (cosine distance 0..2) or with less than `min_margin` to the second-best person count
    against consistency. A track unseen for `max_track_age_seconds` begins anew. With `unknown_events` a full
    window with as many frames that are near nobody is an `unknown` event, once in a track that was never
    anyone.

    Every frame is answered with an event or adds one to `refusals` under one reason: `no_match`,
    `below_threshold` and `low_margin` (this frame), `unconfirmed` (the window is not full yet),
    `inconsistent_track`, `cooldown`, `repeated_frame` (not newer than the track's last, and ignored), or the
    caller's `suppressed_reason`.

    `clock` is monotonic seconds, `wall_clock` the time that the event bears, `new_suffix` the random tail of
    its id. Does no I/O and is not thread-safe: it belongs to the thread that recognises.
    """

    def __init__(  # noqa: PLR0917 - seed 003 lets all six be given by position
        self,
        device_id: str,
        confirmation_frames: int = 5,
        consistency_threshold: float = 0.8,
        cooldown_seconds: float = 30.0,
        distance_threshold: float = 0.35,
        max_track_age_seconds: float = 5.0,
        *,
        min_margin: float = 0.0,
        unknown_events: bool = False,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], datetime] = utc_now,
        new_suffix: Callable[[], str] = lambda: secrets.token_hex(6),
    ) -> None:
        if confirmation_frames < 1:
            raise ValueError(f"confirmation_frames is at least 1, not {confirmation_frames}")
        if not 0 < consistency_threshold <= 1:
            raise ValueError(f"consistency_threshold is a share in (0, 1], not {consistency_threshold}")
        self._device_id = device_id
        self._frames_needed = confirmation_frames
        # The small allowance keeps 0.7 of 10 frames at 7, which floating point would make 8.
        self._votes_needed = math.ceil(consistency_threshold * confirmation_frames - 1e-9)
        self._cooldown = cooldown_seconds
        self._distance_threshold = distance_threshold
        self._min_margin = min_margin
        self._unknown_events = unknown_events
        self._max_track_age = max_track_age_seconds
        self._clock = clock
        self._wall_clock = wall_clock
        self._new_suffix = new_suffix
        self.refusals: Counter[str] = Counter()
        self._tracks: ExpiringMap[str, _RecognitionTrack] = ExpiringMap(max_track_age_seconds)
        self._last_events: ExpiringMap[str, float] = ExpiringMap(cooldown_seconds)

    @property
    def tracks_in_memory(self) -> int:
        """Tracks in memory."""
        return len(self._tracks)

    @property
    def cooldowns_in_memory(self) -> int:
        """People in memory because of a recent event."""
        return len(self._last_events)

    def process_recognition(
        self,
        track_id: str,
        user_id: str | None,
        distance: float,
        frame_id: int,
        *,
        confidence: float | None = None,
        margin: float | None = None,
        inference_ms: float | None = None,
        space: str | None = None,
        gallery_version: int | None = None,
    ) -> Event | None:
        """The event that this frame of `track_id` completes, or None with a reason counted in `refusals`.

        `user_id` is the nearest person, None if there is nobody; `distance` is the cosine distance to them.
        The event's confidence is the mean cosine similarity of the frames that agree, clipped to 0..1, unless
        `confidence` is given.
        """
        return self.decide(
            track_id,
            user_id,
            distance,
            frame_id,
            confidence=confidence,
            margin=margin,
            inference_ms=inference_ms,
            space=space,
            gallery_version=gallery_version,
        ).event

    def decide(
        self,
        track_id: str,
        user_id: str | None,
        distance: float,
        frame_id: int,
        *,
        suppressed_reason: str | None = None,
        confidence: float | None = None,
        margin: float | None = None,
        inference_ms: float | None = None,
        space: str | None = None,
        gallery_version: int | None = None,
    ) -> EventDecision:
        """`process_recognition` with the reason.

        With a `suppressed_reason` (a blurred face, a stale gallery) the frame is no evidence, for or against.
        """
        now = self._clock()
        self._tracks.forget(now)
        self._last_events.forget(now)
        begun = _RecognitionTrack(deque(maxlen=self._frames_needed), frame_id - 1, now)
        track = self._tracks.get(track_id) or begun
        if frame_id <= track.last_frame_id:
            return self._refuse(REPEATED_FRAME)
        track.last_frame_id = frame_id
        track.frames += 1
        self._tracks.put(track_id, track, now)
        if suppressed_reason is not None:
            return self._refuse(suppressed_reason)
        if now - track.judged_at > self._max_track_age:
            # What was seen before is no evidence any more, but whoever the track was is told.
            track.window.clear()
        track.window.append(self._recognition(user_id, distance, margin))
        track.judged_at = now

        given: dict[str, JsonValue] = {
            "inference_ms": inference_ms,
            "space": space,
            "gallery_version": gallery_version,
        }
        votes = _votes(track)
        person, reason = self._verdict(track, votes, now)
        track.is_told = track.is_told or person is not None
        if reason is None and person is not None:
            self._last_events.put(person, now, now)
            return EventDecision(self._event(person, track_id, track, confidence, given), None, person, votes)
        if self._is_stranger(track, votes):
            track.is_told = True
            return EventDecision(self._event(None, track_id, track, confidence, given), None, None, votes)
        return self._refuse(reason or INCONSISTENT_TRACK, person, votes)

    def _refuse(self, reason: str, person: str | None = None, votes: int = 0) -> EventDecision:
        self.refusals[reason] += 1
        return EventDecision(None, reason, person, votes)

    def _recognition(self, user_id: str | None, distance: float, margin: float | None) -> _Recognition:
        reason = None
        if user_id is None:
            reason = NO_MATCH
        # Written so that a distance or margin which is not a number is no match either.
        elif not distance <= self._distance_threshold:
            reason = BELOW_THRESHOLD
        elif margin is not None and not margin >= self._min_margin:
            reason = LOW_MARGIN
        return _Recognition(user_id if reason is None else None, reason, distance, margin)

    def _verdict(self, track: _RecognitionTrack, votes: int, now: float) -> tuple[str | None, str | None]:
        """Who the track is, and why the newest frame makes no event of it (None: it does).

        The newest frame must agree: who was just deleted from the gallery has frames in the window still.
        """
        newest = track.window[-1]
        if newest.user_id is None:
            return None, newest.reason
        if len(track.window) < self._frames_needed:
            return None, UNCONFIRMED
        if votes < self._votes_needed:
            return None, INCONSISTENT_TRACK
        last_event = self._last_events.get(newest.user_id)
        cooling = last_event is not None and now - last_event < self._cooldown
        return newest.user_id, COOLDOWN if cooling else None

    def _is_stranger(self, track: _RecognitionTrack, votes: int) -> bool:
        """Whether the track is to be reported as unknown now: nearly all of a full window is near nobody."""
        if not self._unknown_events or track.is_told or len(track.window) < self._frames_needed:
            return False
        return track.window[-1].reason in _NOBODY and votes >= self._votes_needed

    def _event(
        self,
        user_id: str | None,
        track_id: str,
        track: _RecognitionTrack,
        confidence: float | None,
        given: dict[str, JsonValue],
    ) -> Event:
        """`facial_id` of a person, or `unknown` for None."""
        event_type: Literal["facial_id", "unknown"] = "facial_id" if user_id else "unknown"
        agreeing = [
            each for each in track.window if (each.user_id == user_id if user_id else each.reason in _NOBODY)
        ]
        distance = _mean([each.distance for each in agreeing])
        margins = [each.margin for each in agreeing if each.margin is not None]
        metadata: dict[str, JsonValue] = {
            "distance": round(distance, 4) if math.isfinite(distance) else None,
            "frames_tracked": track.frames,
            "track_id": track_id,
            "margin": round(_mean(margins), 4) if margins and user_id else None,
            **given,
        }
        if confidence is None:
            # Of an unknown person nothing is sure but how many frames found nobody.
            confidence = 1.0 - distance if user_id else len(agreeing) / len(track.window)
        at = self._wall_clock()
        # A clock before 1970 (a dead battery) still gives a valid id.
        at_ms = max(0, int(at.timestamp() * 1000))
        return Event(
            event_id=new_event_id(EVENT_CODES[event_type], at_ms, self._new_suffix()),
            device_id=self._device_id,
            user_id=user_id,
            event_type=event_type,
            timestamp=at,
            confidence=round(min(1.0, max(0.0, confidence)), 4),
            metadata={key: value for key, value in metadata.items() if value is not None},
        )


def _votes(track: _RecognitionTrack) -> int:
    """How many frames of the window say what the newest says: the same person, or nobody we know."""
    newest = track.window[-1]
    if newest.user_id is not None:
        return sum(each.user_id == newest.user_id for each in track.window)
    return sum(each.reason in _NOBODY for each in track.window)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
