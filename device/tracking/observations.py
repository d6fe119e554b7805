"""Send observations of faces to the tracker and keep its assignments (seed 004)."""

import threading
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Any

from broker_bridge.contract import channels
from broker_bridge.contract.channels import Decoded
from broker_bridge.contract.embeddings import EmbeddingSpace, normalise
from broker_bridge.contract.messages import Assignment, Observation
from device.mqtt.link import Link, SessionListener
from device.recognition.sighting import FrameReport
from device.vision.detectors.detector import FaceBox

from .sampling import FaceSample, ObservationSampler

# After a large page on the link, an older position no longer matches a walking person.
_LATE_SECONDS = 2.0


class ObservationSender(SessionListener):
    """The publisher of observations of tracks.

    It publishes them as they are seen, stores nothing and waits for no connection.

    The recognition thread calls `send_report`, any thread `assignment_of` and `await_assignments`; all
    else runs in the link's thread (see `SessionListener`). While `quarantined`, nothing is sent, since no
    other vector compares with such vectors. `clock` is monotonic seconds. `run` prefixes track ids on the
    wire: every run counts its tracks from `face_0`, and an assignment of the previous run may arrive
    late. `counts` has observations `sent`, `dropped` (no connection, or too late) and `refused` (against
    the contract).
    """

    def __init__(
        self,
        link: Link,
        space: EmbeddingSpace,
        *,
        clock: Callable[[], float],
        run: str,
        quarantined: Callable[[], bool] = lambda: False,
    ) -> None:
        self._link = link
        self._space = space
        self._clock = clock
        self._prefix = f"{run}-"
        self._quarantined = quarantined
        self._sampler = ObservationSampler()
        self._changed = threading.Condition()
        # By live track that was observed; None until the tracker has assigned it.
        self._assignments: dict[str, Assignment | None] = {}
        self._awaited: set[str] = set()
        self._online = False
        # All keys from the start: the heartbeat reads them in another thread.
        self.counts: Counter[str] = Counter(sent=0, dropped=0, refused=0)

    def send_report(
        self, report: FrameReport, frame_size: tuple[int, int], captured_at: datetime
    ) -> list[str]:
        """Send the observations of `report` that are due; return their track ids.

        The frame has `frame_size` (width, height in pixels) and was taken at `captured_at`.
        """
        if self._quarantined():
            self._sampler.reset()
            faces = []
        else:
            faces = self._sampler.select_due(report.sightings, report.captured_at)
        sent = [face.track_id for face in faces]
        with self._changed:
            self._assignments = {
                track_id: known for track_id, known in self._assignments.items() if track_id in self._sampler
            }
            self._assignments |= {track_id: self._assignments.get(track_id) for track_id in sent}
            self._awaited = (self._awaited & set(self._assignments)) | set(sent)
            if not self._online:
                self.counts["dropped"] += len(faces)
                faces = []
        if faces:
            seen_at = self._clock()
            self._link.submit(lambda: self._send(faces, frame_size, captured_at, seen_at))
        return sent

    def assignment_of(self, track_id: str) -> Assignment | None:
        """Return the latest assignment of the track.

        Returns None without one, or for a lost track.
        """
        with self._changed:
            return self._assignments.get(track_id)

    def await_assignments(self, track_ids: Collection[str], seconds: float) -> bool:
        """Wait for assignments; return whether every observed track has one.

        The tracks are those of `track_ids`. The wait ends after `seconds`, or when the connection is
        lost.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._online or self._awaited.isdisjoint(track_ids), seconds)
            return self._awaited.isdisjoint(track_ids)

    def connected(self, _now: float) -> None:
        self._set_online(True)

    def disconnected(self) -> None:
        self._set_online(False)

    def _set_online(self, online: bool) -> None:
        with self._changed:
            self._online = online
            self._changed.notify_all()

    def receive_message(self, decoded: Decoded[Any]) -> None:
        if decoded.channel is not channels.ASSIGNED:
            return
        assignment: Assignment = decoded.message
        if not assignment.track_id.startswith(self._prefix):
            return
        track_id = assignment.track_id.removeprefix(self._prefix)
        with self._changed:
            if track_id in self._assignments:
                self._assignments[track_id] = assignment
                self._awaited.discard(track_id)
                self._changed.notify_all()

    def _send(
        self,
        faces: Sequence[FaceSample],
        frame_size: tuple[int, int],
        captured_at: datetime,
        seen_at: float,
    ) -> None:
        if self._quarantined():
            # The quarantine began after these observations were submitted.
            return
        is_late = self._clock() - seen_at > _LATE_SECONDS
        outcomes = ["dropped" if is_late else self._publish(face, frame_size, captured_at) for face in faces]
        with self._changed:
            self.counts.update(outcomes)

    def _publish(self, face: FaceSample, frame_size: tuple[int, int], captured_at: datetime) -> str:
        try:
            observation = Observation(
                track_id=self._prefix + face.track_id,
                bbox=_within(face.box, frame_size),
                frame_size=list(frame_size),
                space=self._space.id,
                vector=normalise(face.vector, self._space.dimension),
                quality=face.quality,
                liveness=face.liveness,
                captured_at=captured_at,
            )
        except ValueError:
            # Counted and not logged: the error text may quote the vector.
            return "refused"
        is_out = self._link.publish(channels.OBSERVATION, observation.to_json()) is not None
        return "sent" if is_out else "dropped"


def _within(box: FaceBox, frame_size: tuple[int, int]) -> list[float]:
    """Return `box` clipped to the frame, as [x, y, width, height] in pixels.

    The result has no area if the box lies outside.
    """
    left, top = max(0, box.x), max(0, box.y)
    right, bottom = (
        min(end, side) for end, side in zip((box.x + box.width, box.y + box.height), frame_size, strict=True)
    )
    return [float(left), float(top), float(right - left), float(bottom - top)]
