"""Decide which recognitions become events: long and consistent enough (seed 003)."""

import math
import secrets
import time
from collections import Counter, deque
from collections.abc import Callable
from datetime import datetime
from typing import Literal

from pydantic import JsonValue

from broker_bridge.common.clock import utc_now
from broker_bridge.contract.ids import EVENT_CODES, new_event_id
from broker_bridge.contract.messages import Event, Liveness
from device.timing.expiring import ExpiringMap

from .decision import (
    COOLDOWN,
    INCONSISTENT_TRACK,
    NOT_LIVE,
    REPEATED_FRAME,
    UNCONFIRMED,
    EventDecision,
)
from .match_limits import EXACT_BEYOND, MatchLimits
from .recognition_track import UNKNOWN_REASONS, RecognitionTrack, lowest_liveness, rate_frame


class EventValidator:
    """Decide which recognition becomes an event.

    The last `confirmation_frames` frames of a track are its window. A full window makes an event if at least
    `consistency_threshold` of its frames agree with the identity of the newest frame, and that identity had
    no event within `cooldown_seconds` (on any track). Frames without a match, past `distance_threshold`
    (cosine distance 0..2) or with less than `min_margin` to the second-best identity do not agree. A track
    without a frame for `max_track_age_seconds` starts again. With `unknown_events` a full window with as many
    frames of an unknown person makes an `unknown` event, once in a track that never had an identity.

    Every frame returns an event or adds one to `refusals` under one reason: `no_match`, `below_threshold` and
    `low_margin` (this frame), `unconfirmed` (the window is not full yet), `inconsistent_track`, `cooldown`,
    `repeated_frame` (not newer than the track's last frame, and ignored), or the caller's
    `suppressed_reason`.

    `clock` is monotonic seconds, `wall_clock` gives the event's time, `new_suffix` the random end of its id.
    Does no I/O and is not thread-safe: it belongs to the thread that recognises. Raises ValueError for a
    number of frames or a threshold out of range.
    """

    def __init__(  # noqa: PLR0917  # seed 003: six positional parameters
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
            raise ValueError(f"expected confirmation_frames of at least 1, got {confirmation_frames}")
        if not 0 < consistency_threshold <= 1:
            raise ValueError(f"expected a consistency_threshold in (0, 1], got {consistency_threshold}")
        self._device_id = device_id
        self._frames_needed = confirmation_frames
        # The small tolerance keeps 0.7 of 10 frames at 7; floating point would make it 8.
        self._votes_needed = math.ceil(consistency_threshold * confirmation_frames - 1e-9)
        self._cooldown = cooldown_seconds
        self._limits = MatchLimits(distance_threshold, min_margin)
        self._unknown_events = unknown_events
        self._max_track_age = max_track_age_seconds
        self._clock = clock
        self._wall_clock = wall_clock
        self._new_suffix = new_suffix
        self.refusals: Counter[str] = Counter()
        self._tracks: ExpiringMap[str, RecognitionTrack] = ExpiringMap(max_track_age_seconds)
        self._last_events: ExpiringMap[str, float] = ExpiringMap(cooldown_seconds)

    @property
    def limits(self) -> MatchLimits:
        """The limits of a match, at first `distance_threshold` and `min_margin`."""
        return self._limits

    def change_limits(self, limits: MatchLimits) -> None:
        """Use `limits` from now on.

        The frames that the tracks have are judged again. They are dropped if the new limits are so much
        looser that other identities may have been near enough.
        """
        if limits == self._limits:
            return
        is_exact = limits.floor + EXACT_BEYOND >= self._limits.floor
        self._limits = limits
        for track in self._tracks.values():
            if is_exact:
                track.judge_again(limits)
            else:
                track.window.clear()

    @property
    def tracks_in_memory(self) -> int:
        """The number of tracks in memory."""
        return len(self._tracks)

    @property
    def cooldowns_in_memory(self) -> int:
        """The number of identities in memory because of a recent event."""
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
        liveness: Liveness | None = None,
    ) -> Event | None:
        """Return the event that this frame of `track_id` completes, or None.

        The reason for None is counted. `user_id` is the nearest identity, None if the gallery is empty,
        and `distance` its cosine distance (0..2). The event's confidence is the mean cosine similarity of
        the agreeing frames, clipped to 0..1, unless `confidence` is given. Its liveness is the lowest of
        these frames, absent if one of them has none.
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
            liveness=liveness,
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
        liveness: Liveness | None = None,
    ) -> EventDecision:
        """Return the event or its reason, as `process_recognition` returns the event.

        With a `suppressed_reason` (a blurred face, a stale gallery) the frame is no evidence, for or
        against; only NOT_LIVE takes the earlier frames of the track away, so that the frames of an event are
        live in a row.
        """
        now = self._clock()
        self._tracks.expire(now)
        self._last_events.expire(now)
        new_track = RecognitionTrack(deque(maxlen=self._frames_needed), frame_id - 1, now)
        track = self._tracks.get(track_id) or new_track
        if frame_id <= track.last_frame_id:
            return self._suppress(REPEATED_FRAME)
        track.last_frame_id = frame_id
        track.frames += 1
        self._tracks.put(track_id, track, now)
        if suppressed_reason is not None:
            if suppressed_reason == NOT_LIVE:
                track.window.clear()
            return self._suppress(suppressed_reason)
        if now - track.decided_at > self._max_track_age:
            # The old frames are no evidence any more; what the track reported stays reported.
            track.window.clear()
        track.window.append(rate_frame(user_id, distance, margin, self._limits, liveness))
        track.decided_at = now

        details: dict[str, JsonValue] = {
            "inference_ms": inference_ms,
            "space": space,
            "gallery_version": gallery_version,
        }
        votes = track.votes()
        identity, reason = self._identify(track, votes, now)
        track.is_reported = track.is_reported or identity is not None
        if reason is None and identity is not None:
            self._last_events.put(identity, now, now)
            event = self._build_event(identity, track_id, track, confidence, details)
            return EventDecision(event, None, identity, votes)
        if self._is_unknown_person(track, votes):
            track.is_reported = True
            event = self._build_event(None, track_id, track, confidence, details)
            return EventDecision(event, None, None, votes)
        return self._suppress(reason or INCONSISTENT_TRACK, identity, votes)

    def _suppress(self, reason: str, identity: str | None = None, votes: int = 0) -> EventDecision:
        self.refusals[reason] += 1
        return EventDecision(None, reason, identity, votes)

    def _identify(self, track: RecognitionTrack, votes: int, now: float) -> tuple[str | None, str | None]:
        """Return the identity of the track, and the reason for no event (None: an event).

        The newest frame must agree: older frames may show an identity that was just deleted.
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

    def _is_unknown_person(self, track: RecognitionTrack, votes: int) -> bool:
        """Return whether to report the track as unknown now.

        The frames of a full window decide.
        """
        if not self._unknown_events or track.is_reported or len(track.window) < self._frames_needed:
            return False
        return track.window[-1].reason in UNKNOWN_REASONS and votes >= self._votes_needed

    def _build_event(
        self,
        user_id: str | None,
        track_id: str,
        track: RecognitionTrack,
        confidence: float | None,
        details: dict[str, JsonValue],
    ) -> Event:
        """Return a `facial_id` event of an identity, or an `unknown` event for None."""
        event_type: Literal["facial_id", "unknown"] = "facial_id" if user_id else "unknown"
        agreeing = [
            frame
            for frame in track.window
            if (frame.user_id == user_id if user_id else frame.reason in UNKNOWN_REASONS)
        ]
        distance = _mean([frame.distance for frame in agreeing])
        margins = [frame.margin for frame in agreeing if frame.margin is not None]
        liveness = lowest_liveness([frame.liveness for frame in agreeing])
        metadata: dict[str, JsonValue] = {
            "distance": round(distance, 4) if math.isfinite(distance) else None,
            "frames_tracked": track.frames,
            "track_id": track_id,
            "margin": round(_mean(margins), 4) if margins and user_id else None,
            "liveness": liveness.model_dump() if liveness else None,
            **details,
        }
        if confidence is None:
            # For an unknown person the only evidence is the share of frames without a match.
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


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
