"""The camera: whether it opens, what it shows and how fast, within a bounded time."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

from pydantic import JsonValue

from device.vision.capture.camera import Camera, open_camera
from device.vision.capture.sources import CameraError, Image, describe, is_live

from .check import CheckResult

_LIVE_FRAMES = 30
# A file's length is only known at its end; a long one is not read through.
_MOST_FRAMES = 600
_DARK = 8.0
_GRACE_SECONDS = 1.0


@dataclass
class CameraLook:
    """What was seen, written by the thread that reads: `pictures` are the first `keep` frames."""

    keep: int
    count: int = 0
    corrupt: int = 0
    first_at: float = 0.0
    last_at: float = 0.0
    ended: bool = False
    sizes: set[tuple[int, int]] = field(default_factory=set)
    brightness: list[float] = field(default_factory=list)
    pictures: list[Image] = field(default_factory=list)
    failure: Exception | None = None

    def take(self, image: Image, at: float) -> None:
        self.first_at = at if self.count == 0 else self.first_at
        self.last_at = at
        self.count += 1
        self.sizes.add((image.shape[1], image.shape[0]))
        self.brightness.append(float(image[::16, ::16].mean()))
        if len(self.pictures) < self.keep:
            self.pictures.append(image)

    @property
    def fps(self) -> float | None:
        """Frames a second as they came; None for fewer than two."""
        passed = self.last_at - self.first_at
        return (self.count - 1) / passed if self.count > 1 and passed > 0 else None


def look(
    source: str,
    seconds: float,
    keep: int = 0,
    *,
    loop: bool = False,
    opener: Callable[..., Camera] = open_camera,
) -> CameraLook | None:
    """The frames of `source` for at most `seconds`: 30 of a live one, of a file as many as can be read.

    None when it has not shown anything by then: a driver may never answer, which is why a thread asks it that
    is left behind in that case. Raises CameraError, also for a live one that is to be repeated (`loop`).
    """
    seen = CameraLook(keep)
    ended = threading.Event()
    open_cameras: list[Camera] = []
    deadline = time.monotonic() + seconds

    def read() -> None:
        try:
            # At its own rate a file would take as long as it lasts, and repeated for ever.
            live = is_live(source)
            with opener(source, loop=loop and live, fps=None if live else 0) as camera:
                open_cameras.append(camera)
                _read(camera, seen, deadline)
                seen.corrupt = camera.corrupt
        except Exception as error:  # noqa: BLE001  # raised again by who asked
            seen.failure = error
        finally:
            ended.set()

    threading.Thread(target=read, name="doctor-camera", daemon=True).start()
    # The reading thread stops by itself at its deadline, unless the camera does not answer.
    grace = min(_GRACE_SECONDS, seconds)
    if not ended.wait(seconds + grace):
        for camera in open_cameras:
            camera.stop()
        ended.wait(grace)
    if seen.failure is not None:
        raise seen.failure
    return seen if seen.count else None


def _read(camera: Camera, seen: CameraLook, deadline: float) -> None:
    most = max(_LIVE_FRAMES if camera.live else _MOST_FRAMES, seen.keep)
    for frame in camera:
        seen.take(frame.image, frame.captured_at)
        if seen.count >= most or time.monotonic() >= deadline:
            return
    seen.ended = True


def check_camera(
    source: str, seen: Callable[[], CameraLook | None], seconds: float, *, in_use: bool = False
) -> CheckResult:
    """What `seen` gives of `source` (see `look`); `in_use` says that a device runs here and may hold it."""
    name = describe(source)
    live = is_live(source)
    values: dict[str, JsonValue] = {"source": name, "live": live}
    try:
        found = seen()
    except CameraError as error:
        found, failure = None, str(error)
    else:
        failure = f"{name} shows nothing within {seconds:.0f} s"
    if found is None:
        if in_use and live:
            detail = f"{failure}; a device runs on this data folder and may hold it"
            return CheckResult("camera", "warning", detail, "stop the device to look at its camera", values)
        return CheckResult(
            "camera", "fault", failure, "check WFM_DEVICE__SOURCE, cable and permissions", values
        )
    return _judge(name, live, found, values)


def _judge(name: str, live: bool, found: CameraLook, values: dict[str, JsonValue]) -> CheckResult:
    sizes = [f"{width}x{height}" for width, height in sorted(found.sizes)]
    bright = median(found.brightness)
    values.update(
        sizes=list(sizes),
        frames=found.count,
        fps=round(found.fps, 1) if found.fps else None,
        ended=found.ended,
        corrupt=found.corrupt,
        brightness=round(bright, 1),
    )
    rate = f" at {found.fps:.1f} a second" if found.fps else ""
    if live:
        detail = f"{name}: {', '.join(sizes)}, {found.count} frames{rate}"
    else:
        length = f"{found.count} frames" if found.ended else f"more than {found.count} frames"
        detail = f"{name}: {', '.join(sizes)}, {length}, read{rate}"
    advice = None
    if found.corrupt:
        detail += f", {found.corrupt} could not be decoded"
        advice = "check the cable, the network or the file: damaged pictures are left out"
    elif bright < _DARK:
        detail += f", almost black (mean grey level {bright:.0f})"
        advice = "look whether something covers the lens, and at the light"
    return CheckResult("camera", "warning" if advice else "ok", detail, advice, values)
