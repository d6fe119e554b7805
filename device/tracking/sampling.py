"""Which faces of a picture the tracker is told of: a track's first, then its best of every second."""

from collections.abc import Sequence
from dataclasses import dataclass

from device.recognition.sighting import Sighting
from device.vision.detectors.detector import FaceBox, Float32


@dataclass(frozen=True)
class FaceSample:
    """Where the face of a track is now, with the best vector (float32[d], unit length) that it gave since it
    was last told of, and that one's quality (0..1, see `face_quality`)."""

    track_id: str
    box: FaceBox
    vector: Float32
    quality: float


@dataclass
class _SampledTrack:
    seen_at: float
    told_at: float | None = None
    vector: Float32 | None = None
    quality: float = 0.0


class ObservationSampler:
    """Decides by the times of the frames; a track that was not seen for `gone_seconds` is forgotten, which is
    longer than a FaceTracker remembers a face.

    A track is told of at its first face that has a vector, and then once in `every_seconds` for as long as it
    is seen: with the best face since, so that a better one waits until then, and a worse one that follows it
    does not take its place.
    """

    def __init__(self, every_seconds: float = 1.0, gone_seconds: float = 2.0) -> None:
        self._every = every_seconds
        self._gone = gone_seconds
        self._tracks: dict[str, _SampledTrack] = {}

    def __len__(self) -> int:
        return len(self._tracks)

    def __contains__(self, track_id: object) -> bool:
        return track_id in self._tracks

    def due(self, sightings: Sequence[Sighting], now: float) -> list[FaceSample]:
        """What to tell of one picture, seen at `now` (seconds of the frames' clock)."""
        self._tracks = {id_: one for id_, one in self._tracks.items() if now - one.seen_at <= self._gone}
        faces = (self._look(seen, now) for seen in sightings)
        return [face for face in faces if face is not None]

    def forget(self) -> None:
        """Begin anew: every track that is seen from now on is a first one."""
        self._tracks = {}

    def _look(self, seen: Sighting, now: float) -> FaceSample | None:
        track = self._tracks.setdefault(seen.track_id, _SampledTrack(now))
        track.seen_at = now
        quality = seen.quality or 0.0
        if seen.vector is not None and (track.vector is None or quality >= track.quality):
            track.vector, track.quality = seen.vector, quality
        vector = track.vector
        if vector is None or (track.told_at is not None and now - track.told_at < self._every):
            return None
        track.told_at, track.vector = now, None
        return FaceSample(seen.track_id, seen.box, vector, track.quality)
