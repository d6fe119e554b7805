"""Run a video through the pipeline and draw the results into its frames."""

from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from broker_bridge.contract.messages import Assignment, Event
from device.events.decision import (
    COOLDOWN,
    INCONSISTENT_TRACK,
    LOW_QUALITY,
    NOT_LIVE,
    QUARANTINED,
    STALE_GALLERY,
    UNCONFIRMED,
)
from device.recognition.assembly import Recognition
from device.recognition.sighting import FrameReport, Sighting
from device.vision.capture.camera import Frame
from device.vision.capture.sources import Image
from device.vision.drawing import AMBER, GREEN, GREY, RED, FaceNote, draw

_FOOTER_SECONDS = 2.0
_FOOTER_LINES = 3
_COLOURS = {
    COOLDOWN: GREEN,
    UNCONFIRMED: GREEN,
    LOW_QUALITY: GREY,
    NOT_LIVE: RED,
    QUARANTINED: RED,
    STALE_GALLERY: RED,
}
# The frame matches the identity; only time or further frames that agree are missing.
_NEAR = frozenset({COOLDOWN, UNCONFIRMED, INCONSISTENT_TRACK})


TrackLookup = Callable[[FrameReport, tuple[int, int]], Mapping[str, Assignment]]
"""Maps a frame's report and its width and height in pixels to assignments by track id."""


@dataclass(frozen=True)
class Annotated:
    """A frame with its drawing, the notes beside its faces, and a line per event."""

    image: Image
    report: FrameReport
    notes: tuple[FaceNote, ...]
    events: tuple[str, ...]


@dataclass
class Annotator:
    """The drawing of a pipeline's results, at the video's own time.

    `frames_needed` is the window that a track has to fill. `assigned` has the global ids that the tracker
    assigned, each with its user id if it is linked to an identity.
    """

    recognition: Recognition
    frames_needed: int
    look_up_tracks: TrackLookup = lambda _report, _size: {}
    refusals: Counter[str] = field(default_factory=Counter)
    assigned: dict[int, str | None] = field(default_factory=dict)
    _recent: deque[tuple[float, str]] = field(default_factory=lambda: deque(maxlen=_FOOTER_LINES))

    def __post_init__(self) -> None:
        self._pipeline = self.recognition.build_pipeline(
            suppressed_reason=lambda: None, on_event=lambda _event, _box, _frame: None
        )

    def annotate(self, image: Image, index: int, seconds: float) -> Annotated:
        """Recognise and draw frame `index` (uint8[h, w, 3]) at `seconds`.

        Raises ModelError when a network fails on it.
        """
        report = self._pipeline.process(Frame(image, index, seconds))
        events = tuple(_event_line(seconds, event) for event, _ in report.events)
        self._recent.extend((seconds, line) for line in events)
        self.refusals.update(seen.decision.reason for seen in report.sightings if seen.decision.reason)
        footer = [line for at, line in self._recent if seconds - at <= _FOOTER_SECONDS]
        faces = len(report.sightings)
        header = f"{seconds:7.2f} s  frame {index}  faces {faces}  gallery {report.gallery_version}"
        by_track = self.look_up_tracks(report, (image.shape[1], image.shape[0]))
        self.assigned |= {assignment.global_id: assignment.user_id for assignment in by_track.values()}
        notes = tuple(self._note(seen, by_track.get(seen.track_id)) for seen in report.sightings)
        return Annotated(draw(image, notes, header, footer), report, notes, events)

    def _note(self, seen: Sighting, assigned: Assignment | None) -> FaceNote:
        decision, match = seen.decision, seen.match
        lines = [seen.track_id]
        if assigned is not None:
            lines.append(person_line(assigned.global_id, assigned.user_id))
        if match is not None:
            near = decision.reason in _NEAR or (decision.event and decision.event.user_id)
            lines += [match.user_id if near else f"nearest {match.user_id}"]
            lines += [f"distance {match.distance:.2f}  margin {match.margin:.2f}"]
        if seen.liveness is not None:
            lines.append(f"liveness {seen.liveness.score:.2f}")
        if decision.event is not None:
            lines.append(f"EVENT {decision.event.event_type}")
        elif seen.quality_reason is not None:
            lines.append(f"{decision.reason}: {seen.quality_reason}")
        else:
            lines.append(f"{decision.reason} {decision.votes}/{self.frames_needed}")
        named = decision.event is not None and decision.event.user_id is not None
        colour = GREEN if named else _COLOURS.get(decision.reason or "", AMBER)
        return FaceNote(seen.box, lines, colour, seen.landmarks, decision.event is not None)


def person_line(global_id: int, user_id: str | None) -> str:
    """Return the label of a detected person: `#42`, or `#42 EMP-12345`."""
    return f"#{global_id} {user_id or ''}".rstrip()


def _event_line(seconds: float, event: Event) -> str:
    code = f" {event.emotion_code}" if event.emotion_code else ""
    return f"{seconds:7.2f} s  {event.event_type}{code}  {event.user_id or 'unknown'}"
