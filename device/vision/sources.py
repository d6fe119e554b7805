"""Where pictures come from: one class per kind of source, each with `read` and `close`."""

from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
"""uint8[h, w, 3] in BGR, OpenCV's order."""

FOLDER_FPS = 10.0
_PICTURES = frozenset({".jpg", ".jpeg", ".png", ".bmp"})
# OpenCV waits 30 s for a dead stream by default, longer than a device may take to stop.
_STREAM_TIMEOUT_MS = 5000


class CameraError(Exception):
    """A source that cannot be opened or has nothing to show; one sentence without credentials."""


class Source(Protocol):
    """A sequence of pictures. `live` sources have no end: a failed read means that they are gone."""

    live: bool
    fps: float
    skipped: int

    def read(self) -> Image | None:
        """The next picture, or None at the end (or when a live source fails)."""

    def close(self) -> None: ...


class VideoSource:
    """Camera index, video file, stream URL or GStreamer pipeline through `cv2.VideoCapture`."""

    def __init__(self, source: str, *, live: bool) -> None:
        self.live = live
        self.skipped = 0
        self._capture = _open_capture(source)
        if not self._capture.isOpened():
            self._capture.release()
            raise CameraError(f"{describe(source)} cannot be opened: check that it exists and can be read")
        self.fps = float(self._capture.get(cv2.CAP_PROP_FPS)) or FOLDER_FPS

    def read(self) -> Image | None:
        grabbed, image = self._capture.read()
        if not grabbed or image is None:
            return None
        return np.asarray(image, dtype=np.uint8)

    def close(self) -> None:
        self._capture.release()


class FolderSource:
    """The pictures of a folder by name; one that cannot be decoded is skipped and counted."""

    live = False
    fps = FOLDER_FPS

    def __init__(self, folder: Path) -> None:
        self.skipped = 0
        files = sorted(file for file in folder.iterdir() if file.suffix.lower() in _PICTURES)
        if not files:
            raise CameraError(f"{folder} has no pictures: expected files ending in .jpg, .png or .bmp")
        self._files = iter(files)

    def read(self) -> Image | None:
        for file in self._files:
            image = cv2.imread(str(file), cv2.IMREAD_COLOR)
            if image is not None:
                return np.asarray(image, dtype=np.uint8)
            self.skipped += 1
        return None

    def close(self) -> None:
        self._files = iter(())


def open_source(source: str) -> Source:
    """The source behind a setting: "0", a path, `rtsp://...` or `... ! ... ! appsink`. Raises CameraError."""
    if is_live(source):
        return VideoSource(source, live=True)
    path = Path(source)
    if path.is_dir():
        return FolderSource(path)
    if not path.is_file():
        raise CameraError(
            f"{describe(source)} is neither a camera index, a file, a folder, a stream URL nor a pipeline"
        )
    return VideoSource(source, live=False)


def is_live(source: str) -> bool:
    """Whether `source` is a camera index, a stream URL or a GStreamer pipeline."""
    return source.isdecimal() or "://" in source or " ! " in source


def describe(source: str) -> str:
    """`source` for a log or an error: without user, password or query, and without a pipeline's text."""
    if " ! " in source:
        return "the GStreamer pipeline"
    if "://" in source:
        url = urlsplit(source)
        return f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path}"
    return f"camera {source}" if source.isdecimal() else source


def _open_capture(source: str) -> cv2.VideoCapture:
    if source.isdecimal():
        return cv2.VideoCapture(int(source))
    if " ! " in source:
        return cv2.VideoCapture(source, cv2.CAP_GSTREAMER)
    if "://" in source:
        # Named, since OpenCV's other backends print the whole URL, password included, when they fail.
        timeouts = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _STREAM_TIMEOUT_MS]
        timeouts += [cv2.CAP_PROP_READ_TIMEOUT_MSEC, _STREAM_TIMEOUT_MS]
        return cv2.VideoCapture(source, cv2.CAP_FFMPEG, timeouts)
    return cv2.VideoCapture(source)
