"""Check the camera within a bounded time: its pictures and its frame rate."""

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
# The length of a file is known only at its end, and a long file would take too long.
_MOST_FRAMES = 600
_DARK = 8.0
_GRACE_SECONDS = 1.0


@dataclass
class CameraSample:
    """The frames of a camera, filled by the reading thread.

    `pictures` are the first `keep`.
    """

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

    def add_frame(self, image: Image, at: float) -> None:
        self.first_at = at if self.count == 0 else self.first_at
        self.last_at = at
        self.count += 1
        self.sizes.add((image.shape[1], image.shape[0]))
        self.brightness.append(float(image[::16, ::16].mean()))
        if len(self.pictures) < self.keep:
            self.pictures.append(image)

    @property
    def fps(self) -> float | None:
        """Return the frames per second as they arrived; None for fewer than two."""
        passed = self.last_at - self.first_at
        return (self.count - 1) / passed if self.count > 1 and passed > 0 else None


def sample_camera(
    source: str,
    seconds: float,
    keep: int = 0,
    *,
    loop: bool = False,
    opener: Callable[..., Camera] = open_camera,
) -> CameraSample | None:
    """Return the frames of `source` within `seconds`; None if there are none.

    A live source gives at most 30 frames, a file at most 600. A driver may never answer, so a daemon thread
    reads, and is abandoned in that case. Raises CameraError, also for a live source with `loop`.
    """
    sample = CameraSample(keep)
    ended = threading.Event()
    open_cameras: list[Camera] = []
    deadline = time.monotonic() + seconds

    def read() -> None:
        try:
            # A file is read as fast as possible, and once: else it takes its duration, or for ever.
            live = is_live(source)
            with opener(source, loop=loop and live, fps=None if live else 0) as camera:
                open_cameras.append(camera)
                _read_frames(camera, sample, deadline)
                sample.corrupt = camera.corrupt
        except Exception as error:  # noqa: BLE001  # raised again by the calling thread
            sample.failure = error
        finally:
            ended.set()

    threading.Thread(target=read, name="doctor-camera", daemon=True).start()
    # The reading thread stops at its deadline, unless the driver blocks it.
    grace = min(_GRACE_SECONDS, seconds)
    if not ended.wait(seconds + grace):
        for camera in open_cameras:
            camera.stop()
        ended.wait(grace)
    if sample.failure is not None:
        raise sample.failure
    return sample if sample.count else None


def _read_frames(camera: Camera, sample: CameraSample, deadline: float) -> None:
    most = max(_LIVE_FRAMES if camera.live else _MOST_FRAMES, sample.keep)
    for frame in camera:
        sample.add_frame(frame.image, frame.captured_at)
        if sample.count >= most or time.monotonic() >= deadline:
            return
    sample.ended = True


def check_camera(
    source: str, take_sample: Callable[[], CameraSample | None], seconds: float, *, in_use: bool = False
) -> CheckResult:
    """Check `source` with the sample of `take_sample` (see `sample_camera`).

    `in_use` says that a device runs here and may have the camera open.
    """
    name = describe(source)
    live = is_live(source)
    values: dict[str, JsonValue] = {"source": name, "live": live}
    try:
        sample = take_sample()
    except CameraError as error:
        sample, failure = None, str(error)
    else:
        failure = f"{name} shows nothing within {seconds:.0f} s"
    if sample is None:
        if in_use and live:
            detail = f"{failure}; a device runs on this data folder and may have it open"
            return CheckResult("camera", "warning", detail, "stop the device to check its camera", values)
        return CheckResult(
            "camera", "fault", failure, "check WFM_DEVICE__SOURCE, cable and permissions", values
        )
    return _to_result(name, live, sample, values)


def _to_result(name: str, live: bool, sample: CameraSample, values: dict[str, JsonValue]) -> CheckResult:
    sizes = [f"{width}x{height}" for width, height in sorted(sample.sizes)]
    bright = median(sample.brightness)
    values.update(
        sizes=list(sizes),
        frames=sample.count,
        fps=round(sample.fps, 1) if sample.fps else None,
        ended=sample.ended,
        corrupt=sample.corrupt,
        brightness=round(bright, 1),
    )
    rate = f" at {sample.fps:.1f} a second" if sample.fps else ""
    if live:
        detail = f"{name}: {', '.join(sizes)}, {sample.count} frames{rate}"
    else:
        length = f"{sample.count} frames" if sample.ended else f"more than {sample.count} frames"
        detail = f"{name}: {', '.join(sizes)}, {length}, read{rate}"
    advice = None
    if sample.corrupt:
        detail += f", {sample.corrupt} could not be decoded"
        advice = "check the cable, the network or the file: damaged pictures are dropped"
    elif bright < _DARK:
        detail += f", almost black (mean grey level {bright:.0f})"
        advice = "check the lens for covers, and the light"
    return CheckResult("camera", "warning" if advice else "ok", detail, advice, values)
