"""The clock of the frame at hand."""

from dataclasses import dataclass


@dataclass
class FrameClock:
    """Stands at the moment of the frame that is being looked at, in seconds of the camera's clock.

    What is decided about frames goes by it: how fast the machine is changes nothing, and a recording can be
    judged again.
    """

    seconds: float = 0.0

    def __call__(self) -> float:
        return self.seconds
