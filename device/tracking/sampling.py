"""Choose the faces to observe: the first of a track, then the best of each second."""

from collections.abc import Sequence
from dataclasses import dataclass

from broker_bridge.contract.messages import Liveness
from device.events.decision import NOT_LIVE
from device.recognition.sighting import Sighting
from device.vision.detectors.detector import FaceBox, Float32


@dataclass(frozen=True)
class FaceSample:
    """Current box of a track with its best vector since its last sample.

    `vector` is float32[d] of unit length, `quality` is 0..1 (see `face_quality`), `liveness` is of the face
    of the vector.
    """

    track_id: str
    box: FaceBox
    vector: Float32
    quality: float
    liveness: Liveness | None = None


@dataclass
class _SampledTrack:
    seen_at: float
    sampled_at: float | None = None
    vector: Float32 | None = None
    quality: float = 0.0
    liveness: Liveness | None = None


class ObservationSampler:
    """The sampler of faces to observe, by frame time.

    A track is sampled at its first face with a vector, then once in `every_seconds` while it is seen,
    with the best face since the last sample. A track that was not seen for `gone_seconds` is forgotten;
    that is longer than a FaceTracker remembers a face. A face that is not live drops the vector that waits.
    """

    def __init__(self, every_seconds: float = 1.0, gone_seconds: float = 2.0) -> None:
        self._every = every_seconds
        self._gone = gone_seconds
        self._tracks: dict[str, _SampledTrack] = {}

    def __len__(self) -> int:
        return len(self._tracks)

    def __contains__(self, track_id: object) -> bool:
        return track_id in self._tracks

    def select_due(self, sightings: Sequence[Sighting], now: float) -> list[FaceSample]:
        """Return the samples of a frame at `now` (seconds of the frame clock)."""
        self._tracks = {
            track_id: track for track_id, track in self._tracks.items() if now - track.seen_at <= self._gone
        }
        faces = (self._sample(seen, now) for seen in sightings)
        return [face for face in faces if face is not None]

    def reset(self) -> None:
        """Forget all tracks: each is new when it is seen next."""
        self._tracks = {}

    def _sample(self, seen: Sighting, now: float) -> FaceSample | None:
        track = self._tracks.setdefault(seen.track_id, _SampledTrack(now))
        track.seen_at = now
        if seen.decision.reason == NOT_LIVE:
            track.vector = None
        quality = seen.quality or 0.0
        if seen.vector is not None and (track.vector is None or quality >= track.quality):
            track.vector, track.quality, track.liveness = seen.vector, quality, seen.liveness
        vector = track.vector
        if vector is None or (track.sampled_at is not None and now - track.sampled_at < self._every):
            return None
        track.sampled_at, track.vector = now, None
        return FaceSample(seen.track_id, seen.box, vector, track.quality, track.liveness)
