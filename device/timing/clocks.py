"""A clock that shows the time of the current frame."""

from dataclasses import dataclass


@dataclass
class FrameClock:
    """The time of the current frame, in seconds of the camera's clock.

    Decisions about frames use it: they do not depend on the machine's speed, and a recording can be replayed.
    """

    seconds: float = 0.0

    def __call__(self) -> float:
        return self.seconds
