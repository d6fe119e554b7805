"""Record scores for replay under other settings.

A recording is files that rotate, with one JSON line a frame.
"""

import logging
import os
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Final

from broker_bridge.common.clock import utc_now
from device.events.match_limits import MatchLimits
from device.recognition.sighting import FrameReport, Sighting

from .format import (
    FORMAT,
    FaceScore,
    FrameScores,
    Header,
    RecordedSettings,
    RecordingError,
    file_name,
    file_number,
    recording_files,
)

_log = logging.getLogger(__name__)

SMALLEST_BUDGET: Final = 16 * 1024
_PARTS = 4
# A camera that restarts every minute would otherwise leave small files without end.
_MOST_FILES = 1000
_BUFFER_BYTES = 64 * 1024
_FLUSH_SECONDS = 2.0


class ScoreRecorder:
    """The writer of scores of frames with faces into `folder`.

    The files have at most `max_bytes` together. A file has at most a quarter of that; the oldest files
    are deleted first. Lines are buffered and flushed every two seconds of frame time. A disk error ends
    the recording with one log line, and recognition goes on. `counts` has the `frames` that were flushed
    and those that were `lost`. For the recognition thread.

    Raises RecordingError when the folder cannot be used, ValueError for a budget under 16 KiB.
    """

    def __init__(
        self,
        folder: Path,
        max_bytes: int,
        settings: RecordedSettings,
        *,
        wall_clock: Callable[[], datetime] = utc_now,
    ) -> None:
        if max_bytes < SMALLEST_BUDGET:
            raise ValueError(
                f"a recording needs a budget of {SMALLEST_BUDGET} bytes or more, not {max_bytes}"
            )
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            files = recording_files(folder)
        except OSError as error:
            raise RecordingError(f"{folder}: cannot record scores there ({error.strerror})") from error
        if not os.access(folder, os.W_OK | os.X_OK):
            raise RecordingError(f"{folder}: cannot record scores there (this user may not write)")
        self._folder = folder
        self._max_bytes = max_bytes
        self._settings = settings
        self._wall_clock = wall_clock
        # Numbers order the files, since times depend on a clock that may be wrong.
        self._number = self._run = file_number(files[-1]) + 1 if files else 1
        self._part = 0
        self._file: BinaryIO | None = None
        self._size = 0
        self._flushed_at: float | None = None
        self._ended = False
        self._waiting = 0
        self.counts: Counter[str] = Counter()

    def record(self, report: FrameReport) -> None:
        """Append `report` if it has faces. Disk errors are not raised."""
        if report.sightings:
            self._waiting += 1
        if self._ended:
            self._count("lost")
            return
        try:
            if report.sightings:
                self._append(report)
            self._flush(report.captured_at)
        except OSError as error:
            self._give_up(error)

    def use_limits(self, limits: MatchLimits) -> None:
        """Record under `limits` from now on; another file begins if they are others."""
        changed = {"distance_threshold": limits.distance, "min_margin": limits.margin}
        settings = self._settings.model_copy(update=changed)
        if settings == self._settings:
            return
        self._settings = settings
        try:
            self._close_file()
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        """Flush the buffer and end the recording."""
        self._ended = True
        try:
            self._close_file()
            self._count("frames")
        except OSError as error:
            self._give_up(error)

    def _append(self, report: FrameReport) -> None:
        now = self._wall_clock()
        line = _frame(report, now).to_json() + b"\n"
        part_bytes = self._max_bytes // _PARTS
        if len(line) > part_bytes // 2:
            # A frame of this size would displace the whole recording.
            self._waiting -= 1
            self.counts["lost"] += 1
            return
        file = self._file
        if file is None or self._size + len(line) > part_bytes:
            file = self._open_next(now)
        file.write(line)
        self._size += len(line)

    def _open_next(self, now: datetime) -> BinaryIO:
        self._close_file()
        self._part += 1
        header = Header(
            recording=FORMAT, run=self._run, part=self._part, started_at=now, settings=self._settings
        )
        line = header.to_json() + b"\n"
        _make_room(self._folder, self._max_bytes - self._max_bytes // _PARTS)
        path = self._folder / file_name(self._number)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        self._file = file = os.fdopen(descriptor, "wb", _BUFFER_BYTES)
        self._number += 1
        self._size = file.write(line)
        # Flushed at once, so that a power cut seldom leaves a file without a header.
        file.flush()
        return file

    def _flush(self, now: float) -> None:
        if self._flushed_at is None:
            self._flushed_at = now
        if self._file is not None and now - self._flushed_at >= _FLUSH_SECONDS:
            self._file.flush()
            self._flushed_at = now
            self._count("frames")

    def _close_file(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _count(self, outcome: str) -> None:
        self.counts[outcome] += self._waiting
        self._waiting = 0

    def _give_up(self, error: OSError) -> None:
        _log.error(
            "score recorder stopped; recognition goes on folder=%s error=%r", self._folder, error.strerror
        )
        self._ended = True
        self._count("lost")
        with suppress(OSError):
            # Flushing the buffer fails again for the same reason.
            self._close_file()


def _frame(report: FrameReport, wall_time: datetime) -> FrameScores:
    # Not validated: the values have their types already, and recognition must not fail on a recording.
    # Numbers that are not finite are written as null.
    return FrameScores.model_construct(
        index=report.index,
        captured_at=report.captured_at,
        wall_time=wall_time,
        gallery_version=report.gallery_version,
        faces=[_face(sighting) for sighting in report.sightings],
    )


def _face(sighting: Sighting) -> FaceScore:
    match, decision = sighting.match, sighting.decision
    return FaceScore.model_construct(
        track_id=sighting.track_id,
        user_id=match.user_id if match else None,
        distance=match.distance if match else None,
        margin=match.margin if match else None,
        poor=sighting.quality_reason,
        box=list(sighting.box),
        event_id=decision.event.event_id if decision.event else None,
        refusal=decision.reason,
    )


def _make_room(folder: Path, max_bytes: int) -> None:
    """Delete the oldest files until the rest have at most `max_bytes` together."""
    files = recording_files(folder)
    sizes = [file.stat().st_size for file in files]
    total = sum(sizes)
    for position, (file, size) in enumerate(zip(files, sizes, strict=True)):
        if total <= max_bytes and len(files) - position < _MOST_FILES:
            break
        file.unlink(missing_ok=True)
        total -= size
