"""Sources of images: one class per kind, each with `read` and `close`."""

import os
import re
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from broker_bridge.common.masking import ENCODING_HINT, mask_address, needs_encoding

Image = NDArray[np.uint8]
"""uint8[h, w, 3] in BGR, OpenCV's order."""

FOLDER_FPS = 10.0
# OpenCV raises OverflowError for a number that is no C integer.
_LAST_INDEX = 2**31 - 1
_FASTEST_FPS = 1000.0
_PICTURES = frozenset({".jpg", ".jpeg", ".png", ".bmp"})
# OpenCV waits 30 s for a dead stream by default, longer than the time limit for a stop.
_STREAM_TIMEOUT_MS = 5000
# A failed read at the end of a file takes microseconds, so that many reads cost milliseconds.
_FEWEST_TRIES, _MOST_TRIES = 1_000, 10_000

# Elements that a pipeline begins with; their properties may contain passwords.
_PIPELINE_START = re.compile(r"\s*[a-z0-9]*src\s+[\w-]+\s*=|\s*(?:uridecodebin3?|playbin3?)\s+[\w-]+\s*=")


class CameraError(Exception):
    """A source cannot be opened or has no images; one sentence without credentials."""


class Source(Protocol):
    """A sequence of images; `corrupt` counts skipped ones that could not be decoded."""

    fps: float
    corrupt: int

    def read(self) -> Image | None:
        """Return the next image, or None.

        None is a file's end, or a failed read of a live source.
        """

    def close(self) -> None: ...


class LiveSource:
    """Camera index, stream URL or GStreamer pipeline through `cv2.VideoCapture`.

    Raises CameraError.
    """

    def __init__(self, source: str) -> None:
        self.corrupt = 0
        self._capture = _open_capture(source)
        self.fps = _frame_rate(self._capture)

    def read(self) -> Image | None:
        return _read(self._capture)

    def close(self) -> None:
        self._capture.release()


class FileSource:
    """A video file; damaged and missing frames are skipped and counted."""

    def __init__(self, file: str) -> None:
        self.corrupt = 0
        self._given = 0
        self._capture = _open_capture(file)
        self.fps = _frame_rate(self._capture)
        # An estimate; with a damaged header it is arbitrary and often negative.
        self._declared = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))

    def read(self) -> Image | None:
        # OpenCV reports a damaged frame like the end of the file: only further reads distinguish them.
        left = self._declared - self._given - self.corrupt
        for failed in range(max(_FEWEST_TRIES, min(left, _MOST_TRIES))):
            image = _read(self._capture)
            if image is not None:
                self._given += 1
                self.corrupt += failed
                return image
        self.corrupt += self._lost()
        self._declared = 0
        return None

    def _lost(self) -> int:
        """Return the number of missing frames, 0 within the error of an estimated length."""
        lost = self._declared - self._given - self.corrupt
        return lost if lost > max(2, self._declared // 100) else 0

    def close(self) -> None:
        self._capture.release()


class FolderSource:
    """The images of a folder by name.

    Raises CameraError if the folder has none or cannot be read.
    """

    fps = FOLDER_FPS

    def __init__(self, folder: Path) -> None:
        self.corrupt = 0
        try:
            files = sorted(file for file in folder.iterdir() if file.suffix.lower() in _PICTURES)
        except OSError as error:
            raise CameraError(f"{folder} cannot be read ({error.strerror})") from error
        if not files:
            raise CameraError(f"{folder} has no pictures: expected files ending in .jpg, .png or .bmp")
        self._files = iter(files)

    def read(self) -> Image | None:
        for file in self._files:
            try:
                image = cv2.imread(str(file), cv2.IMREAD_COLOR)
            except cv2.error:
                # Raised for a header with more pixels than OpenCV allows; other damage returns None.
                image = None
            if image is not None:
                return np.asarray(image, dtype=np.uint8)
            self.corrupt += 1
        return None

    def close(self) -> None:
        self._files = iter(())


def open_source(source: str) -> Source:
    """Open the source of a setting: "0", a path, `rtsp://...` or `... ! appsink`.

    Raises CameraError when there is no such source, or it cannot be opened.
    """
    if is_live(source):
        return LiveSource(source)
    path = Path(source)
    try:
        if path.is_dir():
            return FolderSource(path)
        found = path.is_file()
    except (OSError, ValueError) as error:
        # ValueError: a NUL in the name.
        reason = getattr(error, "strerror", None) or "no file has such a name"
        raise CameraError(f"{describe(source)[:200]} cannot be read ({reason})") from error
    if not found:
        raise CameraError(
            f"{describe(source)} is neither a camera index, a file, a folder, a stream URL nor a pipeline"
        )
    return FileSource(source)


def is_live(source: str) -> bool:
    """Return whether `source` is a camera index, a stream URL or a GStreamer pipeline."""
    return source.isdecimal() or "://" in source or is_pipeline(source)


def describe(source: str) -> str:
    """Return `source` for logs and errors, without its secrets.

    Credentials, query and pipeline text are left out.
    """
    if is_pipeline(source):
        return "the GStreamer pipeline"
    return f"camera {source}" if source.isdecimal() else mask_address(source)


def is_pipeline(source: str) -> bool:
    """Return whether `source` is a GStreamer pipeline.

    The blanks around its `!` may be missing.
    """
    return " ! " in source or _PIPELINE_START.match(source) is not None


def _open_capture(source: str) -> cv2.VideoCapture:
    # FFmpeg would write a line to standard error for every damaged block, thousands a second.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    if source.isdecimal():
        capture = _open_index(int(source))
    elif is_pipeline(source):
        capture = cv2.VideoCapture(source, cv2.CAP_GSTREAMER)
    elif "://" in source:
        # FFmpeg by name, since OpenCV's other backends print the URL with its password on failure.
        timeouts = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _STREAM_TIMEOUT_MS]
        timeouts += [cv2.CAP_PROP_READ_TIMEOUT_MSEC, _STREAM_TIMEOUT_MS]
        capture = cv2.VideoCapture(source, cv2.CAP_FFMPEG, timeouts)
    else:
        capture = cv2.VideoCapture(source)
    if not capture.isOpened():
        capture.release()
        hint = f"; {ENCODING_HINT}" if needs_encoding(source) else ""
        raise CameraError(
            f"{describe(source)} cannot be opened: check that it is there, may be read and is not damaged"
            f"{hint}"
        )
    return capture


def _open_index(index: int) -> cv2.VideoCapture:
    return cv2.VideoCapture(index) if index <= _LAST_INDEX else cv2.VideoCapture()


def _frame_rate(capture: cv2.VideoCapture) -> float:
    """Return frames per second; implausible values of a damaged header are replaced."""
    fps = float(capture.get(cv2.CAP_PROP_FPS))
    return fps if 0 < fps <= _FASTEST_FPS else FOLDER_FPS


def _read(capture: cv2.VideoCapture) -> Image | None:
    try:
        grabbed, image = capture.read()
    except cv2.error:
        # An image that OpenCV cannot convert, such as one of size zero.
        return None
    return _as_bgr(image) if grabbed and image is not None and image.size else None


def _as_bgr(image: NDArray[Any]) -> Image:
    """Convert to BGR: infrared cameras have one channel, some pipelines four."""
    channels = 1 if image.ndim == 2 else image.shape[2]
    if channels == 3:
        return np.asarray(image, dtype=np.uint8)
    conversion = cv2.COLOR_GRAY2BGR if channels == 1 else cv2.COLOR_BGRA2BGR
    return np.asarray(cv2.cvtColor(image, conversion), dtype=np.uint8)
