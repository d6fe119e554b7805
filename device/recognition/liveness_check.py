"""Load the liveness check that a firmware brings. The product includes none."""

from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple, Protocol, runtime_checkable

from pydantic import TypeAdapter, ValidationError

from broker_bridge.common.settings import SettingsError
from broker_bridge.contract.errors import LIVENESS_MISSING
from broker_bridge.contract.messages import LivenessMethod
from device.vision.capture.camera import Frame
from device.vision.detectors.detector import FaceBox, Float32

_METHOD: TypeAdapter[str] = TypeAdapter(LivenessMethod)
_LONGEST_REASON = 300


class FaceToCheck(NamedTuple):
    """A face of a frame: its track, its box, its five landmarks.

    `landmarks` is float32[5, 2] in pixels of the frame, None without any.
    """

    track_id: str
    box: FaceBox
    landmarks: Float32 | None


@runtime_checkable
class LivenessCheck(Protocol):
    """A check whether faces are living ones, used by the thread that recognises."""

    @property
    def method(self) -> str:
        """The name of the check in events, 1 to 32 characters of `a-z 0-9 _ -`; read once."""
        ...

    def scores(self, frame: Frame, faces: Sequence[FaceToCheck]) -> Sequence[float]:
        """Return per face how likely it is a living one, 0..1, in the order of `faces`.

        `faces` has at least one face, all of a quality to recognise. The image of `frame` is read-only;
        `captured_at` finds the picture of another sensor, `track_id` the same face in earlier frames.
        """
        ...


def load_liveness_check(path: str) -> LivenessCheck:
    """Return what `module:name` makes, called without arguments.

    Raises SettingsError with one sentence when it makes no liveness check.
    """
    module, _, name = path.partition(":")
    try:
        check: object = getattr(import_module(module), name)()
    except Exception as error:  # foreign code may raise anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:_LONGEST_REASON]
        raise _refusal(path, f"cannot be loaded ({reason}); install its package beside this one") from error
    if not isinstance(check, LivenessCheck) or not callable(check.scores):
        raise _refusal(path, "makes no liveness check: expected an object with `method` and `scores`")
    try:
        _METHOD.validate_python(check.method, strict=True)
    except ValidationError as error:
        raise _refusal(
            path, "has a `method` that events cannot have: expected 1 to 32 characters of a-z 0-9 _ -"
        ) from error
    return check


def _refusal(path: str, reason: str) -> SettingsError:
    return SettingsError([f"{LIVENESS_MISSING}: device.liveness_check: {path} {reason}"])
