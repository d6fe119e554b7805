"""What a camera tells the tracker of the faces it sees, and who the tracker says they are (seed 004)."""

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

# The link may have been busy with a large page: where somebody was so long ago matches nobody who walks.
_LATE_SECONDS = 2.0


class ObservationSender(SessionListener):
    """Tells of tracks as they are seen; nothing is stored, and nothing waits for a connection.

    `send_report` is for the thread that recognises, `assignment_of` and `await_assignments` for any, all else
    runs in the link's (see `SessionListener`). While `quarantined`, nothing is sent.
    `clock` is monotonic seconds. `run` goes before track ids on the wire: every run counts its tracks from
    `face_0`, and an answer to the one before may come late. `counts` has what was `sent`, `dropped` (no
    connection, or too late) and `refused` (the contract does not allow it).
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
        self._telling = ObservationSampler()
        self._news = threading.Condition()
        # Of the tracks that were told of and live: who they are, None until the tracker has said it.
        self._answers: dict[str, Assignment | None] = {}
        self._awaited: set[str] = set()
        self._online = False
        # All of them from the start: a heartbeat reads them in another thread.
        self.counts: Counter[str] = Counter(sent=0, dropped=0, refused=0)

    def send_report(
        self, report: FrameReport, frame_size: tuple[int, int], captured_at: datetime
    ) -> list[str]:
        """Tell what is due of `report`, a picture of `frame_size` (width, height) that was taken at
        `captured_at`; returns the tracks that it was."""
        if self._quarantined():
            self._telling.forget()
            faces = []
        else:
            faces = self._telling.due(report.sightings, report.captured_at)
        told = [face.track_id for face in faces]
        with self._news:
            self._answers = {id_: one for id_, one in self._answers.items() if id_ in self._telling}
            self._answers |= {id_: self._answers.get(id_) for id_ in told}
            self._awaited = (self._awaited & set(self._answers)) | set(told)
            if not self._online:
                self.counts["dropped"] += len(faces)
                faces = []
        if faces:
            seen_at = self._clock()
            self._link.submit(lambda: self._send(faces, frame_size, captured_at, seen_at))
        return told

    def assignment_of(self, track_id: str) -> Assignment | None:
        """Who the track is, by the tracker's last word; None if it has said nothing, or the track is gone."""
        with self._news:
            return self._answers.get(track_id)

    def await_assignments(self, track_ids: Collection[str], seconds: float) -> bool:
        """Wait until the tracker has answered for all of these that were told of; False when it has not
        within `seconds`, or the connection is gone."""
        with self._news:
            self._news.wait_for(lambda: not self._online or self._awaited.isdisjoint(track_ids), seconds)
            return self._awaited.isdisjoint(track_ids)

    def connected(self, _now: float) -> None:
        self._set_online(True)

    def disconnected(self) -> None:
        self._set_online(False)

    def _set_online(self, online: bool) -> None:
        with self._news:
            self._online = online
            self._news.notify_all()

    def receive_message(self, decoded: Decoded[Any]) -> None:
        if decoded.channel is not channels.ASSIGNED:
            return
        assignment: Assignment = decoded.message
        if not assignment.track_id.startswith(self._prefix):
            return
        track_id = assignment.track_id.removeprefix(self._prefix)
        with self._news:
            if track_id in self._answers:
                self._answers[track_id] = assignment
                self._awaited.discard(track_id)
                self._news.notify_all()

    def _send(
        self,
        faces: Sequence[FaceSample],
        frame_size: tuple[int, int],
        captured_at: datetime,
        seen_at: float,
    ) -> None:
        if self._quarantined():
            # The registry's word on the model came while this was on its way.
            return
        is_late = self._clock() - seen_at > _LATE_SECONDS
        fates = ["dropped" if is_late else self._tell(face, frame_size, captured_at) for face in faces]
        with self._news:
            self.counts.update(fates)

    def _tell(self, face: FaceSample, frame_size: tuple[int, int], captured_at: datetime) -> str:
        try:
            observation = Observation(
                track_id=self._prefix + face.track_id,
                bbox=_within(face.box, frame_size),
                frame_size=list(frame_size),
                space=self._space.id,
                vector=normalise(face.vector, self._space.dimension),
                quality=face.quality,
                captured_at=captured_at,
            )
        except ValueError:
            # Counted, and no word in the log: the sentence may quote the vector.
            return "refused"
        is_out = self._link.publish(channels.OBSERVATION, observation.to_json()) is not None
        return "sent" if is_out else "dropped"


def _within(box: FaceBox, frame_size: tuple[int, int]) -> list[float]:
    """The part of `box` that lies in the frame, as [x, y, width, height] in pixels; without an area if none
    does."""
    left, top = max(0, box.x), max(0, box.y)
    right, bottom = (
        min(end, side) for end, side in zip((box.x + box.width, box.y + box.height), frame_size, strict=True)
    )
    return [float(left), float(top), float(right - left), float(bottom - top)]
