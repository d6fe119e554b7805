"""Liveness checks written by hand: a camera loads them by their import path."""

from collections.abc import Callable, Sequence
from typing import Any

from device.recognition.liveness_check import FaceToCheck
from device.vision.capture.camera import Frame

STEADY = "tests.liveness_checks:SteadyCheck"


class SteadyCheck:
    """A check that finds every face likely to be a living one."""

    method = "depth"

    def scores(self, frame: Frame, faces: Sequence[FaceToCheck]) -> list[float]:
        return [0.93 for _ in faces]


class ScriptedCheck:
    """A check that gives one answer after another; `calls` has what it was given.

    A callable answer is called, and so may raise.
    """

    method = "depth"

    def __init__(self, *answers: Any) -> None:
        self._answers = list(answers)
        self.calls: list[tuple[Frame, list[FaceToCheck]]] = []

    def scores(self, frame: Frame, faces: Sequence[FaceToCheck]) -> Any:
        self.calls.append((frame, list(faces)))
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        return answer() if isinstance(answer, Callable) else answer  # type: ignore[arg-type]
