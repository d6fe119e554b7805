"""Decide which emotion readings become events: sure and long enough (seed 003)."""

import math
import secrets
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from pydantic import JsonValue

from broker_bridge.common.clock import utc_now
from broker_bridge.contract.ids import EMOTION_CODE, new_event_id
from broker_bridge.contract.messages import Event, Liveness
from device.timing.expiring import ExpiringMap

from .decision import COOLDOWN, REPEATED_FRAME
from .recognition_track import lowest_liveness

# The reasons, besides those of `decision`, for which an emotion reading makes no event.
UNKNOWN_PERSON: Final = "unknown_person"
NO_CODE: Final = "no_code"
LOW_CONFIDENCE: Final = "low_confidence"
TOO_SHORT: Final = "too_short"


@dataclass
class _EmotionRun:
    """One emotion of one identity on one track, sure in every frame.

    `since` is the time of its first frame in monotonic seconds.
    """

    user_id: str
    code: str
    since: float
    frames: int = 0
    confidence_sum: float = 0.0
    liveness: Liveness | None = None

    @property
    def mean_confidence(self) -> float:
        return self.confidence_sum / self.frames


@dataclass
class _EmotionTrack:
    frame_id: int | None
    run: _EmotionRun | None


class EmotionEventValidator:
    """Decide which emotion reading of a recognised face becomes an event.

    An event needs one code on one track for one identity in every frame of at least `min_duration_ms`,
    each with at least `confidence_threshold`, and no event of that identity and code within
    `cooldown_seconds` (on any track). An unsure frame, another code or identity, or `max_gap_seconds`
    without a frame start again.

    Every call returns an event or adds one to `refusals` under one reason: `unknown_person`, `no_code`
    (an emotion that is not reported), `low_confidence` (also a confidence that is not a number), `too_short`,
    `cooldown`, `repeated_frame` (not newer than the track's last frame, and ignored).

    `clock` is monotonic seconds, `wall_clock` gives the event's time, `new_suffix` the random end of its id.
    Does no I/O and is not thread-safe: it belongs to the thread that recognises. Raises ValueError for a
    threshold or duration out of range.
    """

    def __init__(
        self,
        device_id: str,
        min_duration_ms: float = 500.0,
        confidence_threshold: float = 0.7,
        cooldown_seconds: float = 10.0,
        *,
        max_gap_seconds: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], datetime] = utc_now,
        new_suffix: Callable[[], str] = lambda: secrets.token_hex(6),
    ) -> None:
        if not 0 < confidence_threshold <= 1:
            raise ValueError(f"expected a confidence_threshold in (0, 1], got {confidence_threshold}")
        if not (min_duration_ms >= 0 and max_gap_seconds > 0):
            raise ValueError(
                f"expected positive durations, got {min_duration_ms} ms with gaps of {max_gap_seconds} s"
            )
        self._device_id = device_id
        # One microsecond of tolerance: the difference of two clock readings is rounded.
        self._min_duration = min_duration_ms / 1000 - 1e-6
        self._confidence_threshold = confidence_threshold
        self._cooldown = cooldown_seconds
        self._clock = clock
        self._wall_clock = wall_clock
        self._new_suffix = new_suffix
        self.refusals: Counter[str] = Counter()
        self._tracks: ExpiringMap[str, _EmotionTrack] = ExpiringMap(max_gap_seconds)
        self._last_events: ExpiringMap[tuple[str, str], float] = ExpiringMap(cooldown_seconds)

    @property
    def tracks_in_memory(self) -> int:
        """The number of tracks in memory."""
        return len(self._tracks)

    @property
    def cooldowns_in_memory(self) -> int:
        """The number of pairs of identity and code in memory because of a recent event."""
        return len(self._last_events)

    def process_emotion(
        self,
        track_id: str,
        user_id: str | None,
        emotion_code: str | None,
        confidence: float,
        *,
        intensity: float | None = None,
        frame_id: int | None = None,
        liveness: Liveness | None = None,
    ) -> Event | None:
        """Return the event that this frame of `track_id` completes, or None.

        The reason for None is counted. `user_id` is None for a face that was not recognised,
        `emotion_code` (`EV2.n`) for an emotion without a code. `confidence` and `intensity` are 0..1;
        without an intensity the event has the run's mean confidence. Its liveness is the lowest of the run,
        absent if a frame has none. Raises ValueError for an invalid code.
        """
        if emotion_code is not None and not EMOTION_CODE.fullmatch(emotion_code):
            raise ValueError(f"expected an emotion code EV2.n with up to three digits, got {emotion_code!r}")
        now = self._clock()
        self._tracks.expire(now)
        self._last_events.expire(now)
        track = self._tracks.get(track_id) or _EmotionTrack(None, None)
        if frame_id is not None:
            if track.frame_id is not None and frame_id <= track.frame_id:
                self.refusals[REPEATED_FRAME] += 1
                return None
            track.frame_id = frame_id
        self._tracks.put(track_id, track, now)

        run, reason = self._extend_run(track.run, user_id, emotion_code, confidence, now)
        track.run = run
        if run is not None:
            run.liveness = lowest_liveness([liveness] if run.frames == 1 else [run.liveness, liveness])
        if run is None or reason is not None:
            self.refusals[reason or TOO_SHORT] += 1
            return None
        self._last_events.put((run.user_id, run.code), now, now)
        return self._build_event(run, track_id, now, intensity)

    def _extend_run(
        self, run: _EmotionRun | None, user_id: str | None, code: str | None, confidence: float, now: float
    ) -> tuple[_EmotionRun | None, str | None]:
        """Return the run after one more frame, and the reason for no event.

        The reason is None for an event.
        """
        if user_id is None:
            return None, UNKNOWN_PERSON
        # In this form a confidence that is not a number is low.
        if not self._confidence_threshold <= confidence < math.inf:
            return None, LOW_CONFIDENCE
        if code is None:
            return None, NO_CODE
        if run is None or (run.user_id, run.code) != (user_id, code):
            run = _EmotionRun(user_id, code, now)
        run.frames += 1
        run.confidence_sum += confidence
        if now - run.since < self._min_duration:
            return run, TOO_SHORT
        last_event = self._last_events.get((user_id, code))
        return run, None if last_event is None or now - last_event >= self._cooldown else COOLDOWN

    def _build_event(self, run: _EmotionRun, track_id: str, now: float, intensity: float | None) -> Event:
        if intensity is None or not math.isfinite(intensity):
            intensity = run.mean_confidence
        metadata: dict[str, JsonValue] = {
            "intensity": _share(intensity),
            "duration_ms": round((now - run.since) * 1000),
            "track_id": track_id,
            "frames_tracked": run.frames,
        }
        if run.liveness is not None:
            metadata["liveness"] = run.liveness.model_dump()
        at = self._wall_clock()
        # A clock before 1970 (a dead battery) still gives a valid id.
        at_ms = max(0, int(at.timestamp() * 1000))
        return Event(
            event_id=new_event_id(run.code, at_ms, self._new_suffix()),
            device_id=self._device_id,
            user_id=run.user_id,
            event_type="emotion",
            emotion_code=run.code,
            timestamp=at,
            confidence=_share(run.mean_confidence),
            metadata=metadata,
        )


def _share(value: float) -> float:
    return round(min(1.0, max(0.0, value)), 4)
