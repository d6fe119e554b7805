"""Measure the liveness of faces with the check that a firmware brings."""

import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from broker_bridge.contract.messages import Liveness
from device.events.decision import NOT_LIVE
from device.vision.capture.camera import Frame

from .face_in_frame import FaceInFrame
from .liveness_check import FaceToCheck, LivenessCheck

_NUMBERS: Final = (int, float, np.integer, np.floating)


class LivenessStage:
    """The stage that gives each face of good quality its liveness.

    With a `threshold` (0..1) a face below it is suppressed as NOT_LIVE; so is a face without a valid score,
    since a check that fails shows no life. Without a threshold nothing is suppressed. `failure` says what the
    check did wrong at first, None once it works again; a frame without a face leaves it.
    """

    def __init__(self, check: LivenessCheck, threshold: float | None = None) -> None:
        self._check = check
        self._method = check.method
        self._threshold = threshold
        self.failure: str | None = None

    def check_faces(self, frame: Frame, faces: Sequence[FaceInFrame]) -> None:
        """Set the liveness of faces of good quality, and suppress those not live."""
        good = [face for face in faces if face.quality_reason is None]
        if not good:
            return
        for face, score in zip(good, self._scores(frame, good), strict=True):
            if score is not None:
                face.liveness = Liveness(score=round(score, 4), method=self._method)
            if self._threshold is not None and (score is None or score < self._threshold):
                face.suppressed_reason = NOT_LIVE

    def _scores(self, frame: Frame, faces: Sequence[FaceInFrame]) -> list[float | None]:
        """Return a score per face, None where the check gave no valid one."""
        image = frame.image.view()
        image.flags.writeable = False
        asked = [FaceToCheck(face.track_id, face.box, face.landmarks) for face in faces]
        try:
            answers = list(self._check.scores(replace(frame, image=image), asked))
        except Exception as error:  # noqa: BLE001  # foreign code may raise anything
            self._fail(_describe(error))
            return [None] * len(faces)
        if len(answers) != len(faces):
            self._fail("returned another number of scores than it was given faces")
            return [None] * len(faces)
        scores = [_to_score(answer) for answer in answers]
        if None in scores:
            self._fail("returned a score that is no number from 0 to 1")
        else:
            self.failure = None
        return scores

    def _fail(self, mistake: str) -> None:
        # The first mistake of a run of failures stays, so that it is logged once.
        if self.failure is None:
            effect = "its faces count as not live" if self._threshold is not None else "events go without it"
            self.failure = f"the liveness check {self._method} {mistake}; {effect}"


def _to_score(answer: object) -> float | None:
    if isinstance(answer, bool) or not isinstance(answer, _NUMBERS) or not 0 <= answer <= 1:
        return None
    return abs(float(answer))


def _describe(error: Exception) -> str:
    """Return type and place of `error`, not its text, which may quote a picture."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"raised {type(error).__name__} ({Path(place.filename).name} line {place.lineno})"
