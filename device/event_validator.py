"""From recognitions to events: what was seen long enough, surely enough, and not just now (seed 003)."""

import math
import secrets
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Final

from pydantic import JsonValue

from broker_bridge.contract.ids import EVENT_CODES, new_event_id
from broker_bridge.contract.messages import Event

NO_MATCH: Final = "no_match"
BELOW_THRESHOLD: Final = "below_threshold"
INCONSISTENT_TRACK: Final = "inconsistent_track"
COOLDOWN: Final = "cooldown"
UNCONFIRMED: Final = "unconfirmed"
REPEATED_FRAME: Final = "repeated_frame"


@dataclass(frozen=True)
class _Recognition:
    """One frame of a track; `user_id` is None when nobody matched well enough."""

    user_id: str | None
    distance: float
    margin: float | None


@dataclass
class _Track:
    window: deque[_Recognition]
    last_frame_id: int
    seen_at: float
    frames: int = field(default=0)


class EventValidator:
    """Decides which recognition becomes an event.

    A track's last `confirmation_frames` frames are its window. A full window with at least
    `consistency_threshold` of its frames on the person of the newest frame is an event, unless that person
    had one less than `cooldown_seconds` ago (on any track). Frames without a match, or past
    `distance_threshold` (cosine distance 0..2), count against consistency. A track unseen for
    `max_track_age_seconds` begins anew.

    Every call answers with an event or adds one to `refusals` under one reason: `no_match` and
    `below_threshold` (this frame), `unconfirmed` (the window is not full yet), `inconsistent_track`,
    `cooldown`, `repeated_frame` (not newer than the track's last, and ignored).

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
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
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
        self._max_track_age = max_track_age_seconds
        self._clock = clock
        self._wall_clock = wall_clock
        self._new_suffix = new_suffix
        self.refusals: Counter[str] = Counter()
        # Both are kept oldest first, so that expiry looks at the front only.
        self._tracks: OrderedDict[str, _Track] = OrderedDict()
        self._last_events: OrderedDict[str, float] = OrderedDict()

    @property
    def tracks_held(self) -> int:
        """Tracks in memory."""
        return len(self._tracks)

    @property
    def cooldowns_held(self) -> int:
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

        `user_id` is None when nobody matched; `distance` is the cosine distance of the match. The event's
        confidence is the mean cosine similarity of the frames that agree, clipped to 0..1, unless
        `confidence` is given.
        """
        now = self._clock()
        self._expire(now)
        track = self._tracks.get(track_id)
        if track is None:
            track = _Track(deque(maxlen=self._frames_needed), frame_id - 1, now)
            self._tracks[track_id] = track
        if frame_id <= track.last_frame_id:
            self.refusals[REPEATED_FRAME] += 1
            return None
        self._add(track, track_id, self._judge(user_id, distance, margin), frame_id, now)

        winner = self._winner(track)
        refusal = self._refusal(track, user_id, winner, now)
        if refusal is not None or winner is None:
            self.refusals[refusal or INCONSISTENT_TRACK] += 1
            return None
        self._last_events[winner] = now
        self._last_events.move_to_end(winner)
        given: dict[str, JsonValue] = {
            "inference_ms": inference_ms,
            "space": space,
            "gallery_version": gallery_version,
        }
        return self._event(winner, track_id, track, confidence, given)

    def _judge(self, user_id: str | None, distance: float, margin: float | None) -> _Recognition:
        # Written so that a distance which is not a number is no match either.
        near = distance <= self._distance_threshold
        return _Recognition(user_id if near else None, distance, margin)

    def _add(
        self, track: _Track, track_id: str, recognition: _Recognition, frame_id: int, now: float
    ) -> None:
        track.window.append(recognition)
        track.last_frame_id = frame_id
        track.seen_at = now
        track.frames += 1
        self._tracks.move_to_end(track_id)

    def _winner(self, track: _Track) -> str | None:
        """The person of the newest frame, if enough frames of a full window agree with it.

        The newest must agree: somebody who was just deleted from the gallery has frames in the window still.
        """
        newest = track.window[-1].user_id
        if newest is None or len(track.window) < self._frames_needed:
            return None
        votes = sum(each.user_id == newest for each in track.window)
        return newest if votes >= self._votes_needed else None

    def _refusal(self, track: _Track, user_id: str | None, winner: str | None, now: float) -> str | None:
        """Why this frame makes no event; None if it makes one."""
        last_event = self._last_events.get(winner) if winner is not None else None
        if winner is not None and (last_event is None or now - last_event >= self._cooldown):
            return None
        if user_id is None:
            return NO_MATCH
        if track.window[-1].user_id is None:
            return BELOW_THRESHOLD
        if len(track.window) < self._frames_needed:
            return UNCONFIRMED
        return INCONSISTENT_TRACK if winner is None else COOLDOWN

    def _event(
        self,
        user_id: str,
        track_id: str,
        track: _Track,
        confidence: float | None,
        given: dict[str, JsonValue],
    ) -> Event:
        agreeing = [each for each in track.window if each.user_id == user_id]
        margins = [each.margin for each in agreeing if each.margin is not None]
        distance = _mean([each.distance for each in agreeing])
        metadata: dict[str, JsonValue] = {
            "distance": round(distance, 4),
            "frames_tracked": track.frames,
            "track_id": track_id,
            "margin": round(_mean(margins), 4) if margins else None,
            **given,
        }
        at = self._wall_clock()
        # A clock before 1970 (a dead battery) still gives a valid id.
        at_ms = max(0, int(at.timestamp() * 1000))
        similarity = 1.0 - distance if confidence is None else confidence
        return Event(
            event_id=new_event_id(EVENT_CODES["facial_id"], at_ms, self._new_suffix()),
            device_id=self._device_id,
            user_id=user_id,
            event_type="facial_id",
            timestamp=at,
            confidence=round(min(1.0, max(0.0, similarity)), 4),
            metadata={key: value for key, value in metadata.items() if value is not None},
        )

    def _expire(self, now: float) -> None:
        while self._tracks:
            track_id, track = next(iter(self._tracks.items()))
            if now - track.seen_at <= self._max_track_age:
                break
            del self._tracks[track_id]
        while self._last_events:
            user_id, at = next(iter(self._last_events.items()))
            if now - at < self._cooldown:
                break
            del self._last_events[user_id]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
