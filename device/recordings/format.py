"""Format of recorded scores, and its reader: a header, then one JSON line a frame.

A line has the nearest identity, its distance and the decision per face. It never has an image, a vector or
a name.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, ValidationError, model_validator

from broker_bridge.contract.messages import Version
from broker_bridge.contract.wire import ShortText, WireModel, WireTime

FORMAT: Final = "wfm-scores/1"
_FILE = re.compile(r"scores-(\d{8,})\.jsonl")
_LONGEST_LINE = 1024 * 1024
_MOST_PROBLEMS = 20

Share = Annotated[float, Field(gt=0, le=1)]
Distance = Annotated[float, Field(ge=0, le=2)]
Seconds = Annotated[float, Field(ge=0)]


class RecordingError(Exception):
    """A recording cannot be written or read; the message names it and the reason."""


class RecordedSettings(WireModel):
    """Settings of EventValidator at the time of the recording, in its units."""

    device_id: ShortText
    space: ShortText
    distance_threshold: Distance
    min_margin: Distance
    confirmation_frames: Annotated[int, Field(ge=1)]
    consistency_threshold: Share
    cooldown_seconds: Seconds
    max_track_age_seconds: Seconds = 5.0
    unknown_events: bool = False
    fps: Seconds | None = None


class Header(WireModel):
    """The first line of each file.

    A run lasts from start to stop of the device; `part` counts its files from 1.
    """

    recording: Literal["wfm-scores/1"]
    run: Annotated[int, Field(ge=0)]
    part: Annotated[int, Field(ge=1)]
    started_at: WireTime
    settings: RecordedSettings


class FaceScore(WireModel):
    """A face in a frame: the nearest identity and the decision.

    The decision is `event_id` or `refusal`. `distance` and `margin` are missing when the face was not
    compared; `poor` is the reason if its quality was too low. `box` is x, y, width, height in pixels.
    """

    track_id: ShortText
    user_id: ShortText | None = None
    distance: float | None = None
    margin: float | None = None
    poor: ShortText | None = None
    box: Annotated[list[int], Field(min_length=4, max_length=4)]
    event_id: ShortText | None = None
    refusal: ShortText | None = None

    @model_validator(mode="after")
    def _one_decision(self) -> "FaceScore":
        if (self.event_id is None) == (self.refusal is None):
            raise ValueError("expected an event_id or a refusal, exactly one of them")
        return self


class FrameScores(WireModel):
    """All faces of frame `index`.

    `captured_at` is in monotonic seconds of the run.
    """

    index: int
    captured_at: float
    wall_time: WireTime
    gallery_version: Version
    faces: Annotated[list[FaceScore], Field(min_length=1)]


class Recording:
    """One file of a recording.

    Iterating its `frames` fills `damaged`, `problems` and `is_torn`.
    """

    def __init__(self, path: Path, header: Header) -> None:
        self.path = path
        self.header = header
        self.damaged = 0
        self.problems: list[str] = []
        """One sentence for each of the first twenty damaged lines."""
        self.is_torn = False
        """Whether the last line is incomplete, as after a power cut."""

    def frames(self, on_bytes: Callable[[int], object] = lambda _: None) -> Iterator[FrameScores]:
        """Yield the frames in order, without damaged lines.

        `on_bytes` receives the size of each line. Raises RecordingError when the file cannot be read.
        """
        self.damaged, self.problems, self.is_torn = 0, [], False
        for number, line in enumerate(_lines(self.path), start=1):
            on_bytes(len(line))
            if number == 1:
                continue
            try:
                yield FrameScores.model_validate_json(line)
            except ValidationError as error:
                if line.endswith(b"\n") or len(line) == _LONGEST_LINE:
                    self._note(number, error)
                else:
                    self.is_torn = True

    def _note(self, number: int, error: ValidationError) -> None:
        self.damaged += 1
        if len(self.problems) < _MOST_PROBLEMS:
            self.problems.append(f"{self.path}: line {number} is damaged ({_reason(error)})")


def read_recording(path: Path) -> Recording:
    """Read the header of the recording `path`. Raises RecordingError when it has none."""
    first = next(_lines(path), b"")
    try:
        return Recording(path, Header.model_validate_json(first))
    except ValidationError as error:
        raise RecordingError(
            f"{path}: is not a recording of scores of format {FORMAT}: line 1 is not its header "
            f"({_reason(error)})"
        ) from error


def find_recordings(path: Path) -> tuple[list[Recording], list[str]]:
    """Return the recordings in `path`, oldest first.

    Returns a sentence per unreadable file besides. `path` is a file or a folder. A file that a power cut
    left empty is unreadable. Raises RecordingError when there is none.
    """
    if not path.is_dir():
        return [read_recording(path)], []
    recordings, problems = [], []
    try:
        files = recording_files(path)
    except OSError as error:
        raise RecordingError(f"{path}: cannot be read ({error.strerror})") from error
    for file in files:
        try:
            recordings.append(read_recording(file))
        except RecordingError as error:
            problems.append(str(error))
    if not recordings:
        raise RecordingError(problems[0] if problems else f"{path}: holds no recording of scores")
    return recordings, problems


def file_name(number: int) -> str:
    """Return the name of the `number`-th file of a folder."""
    return f"scores-{number:08}.jsonl"


def file_number(file: Path) -> int:
    """Return the number in the name of `file`; 0 if it is not a recording."""
    found = _FILE.fullmatch(file.name)
    return int(found[1]) if found else 0


def recording_files(folder: Path) -> list[Path]:
    """Return the recording files in `folder`, oldest first."""
    return sorted((file for file in folder.iterdir() if _FILE.fullmatch(file.name)), key=file_number)


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            # Bounded, so that a file without line breaks is not read into memory whole.
            while line := file.readline(_LONGEST_LINE):
                yield line
    except OSError as error:
        raise RecordingError(f"{path}: cannot be read ({error.strerror})") from error


def _reason(error: ValidationError) -> str:
    """Return the first problem, without the input."""
    first = error.errors(include_input=False, include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    return f"{field}: {first['msg']}" if field else first["msg"]
