"""The canary check of the device's embedder.

It runs at the start and for the command `run_canary`.
"""

from collections.abc import Mapping
from pathlib import Path

from pydantic import JsonValue

from broker_bridge.contract.errors import CANARY_FAILED
from device.vision.canary import CanaryResult, check_canary, open_reference
from device.vision.inference.session import ModelError, Session

from .commands import CommandFailedError
from .health import Health


class CanaryRun:
    """The comparison of `session`, which recognises, with the CPU.

    The device's `space` is quarantined if they differ. `run` is for any thread, also while another one
    recognises with `session`: ONNX Runtime allows several threads, TensorRT sessions have a lock. The
    reference model is opened for each run and closed after it, so that a second copy of the model stays
    in memory no longer.
    """

    def __init__(
        self, session: Session, space: str, health: Health, reference_model: Path | None = None
    ) -> None:
        self._session = session
        self._space = space
        self._health = health
        self._reference_model = reference_model

    def run(self) -> CanaryResult:
        """Return the result and report it to the health.

        A comparison that cannot be made has failed.
        """
        try:
            result = check_canary(self._session, open_reference(self._session, self._reference_model))
        except ModelError as error:
            result = CanaryResult(0.0, False, str(error), 0.0)
        if result.passed:
            self._health.clear(CANARY_FAILED)
        else:
            self._health.report(CANARY_FAILED, f"{self._space} is in quarantine: {result.detail}")
        return result

    def handle(self, _args: Mapping[str, JsonValue]) -> str:
        """Run the command `run_canary` and return the result.

        Raises CommandFailedError if the canary check has failed.
        """
        result = self.run()
        if not result.passed:
            raise CommandFailedError(f"{self._space} is in quarantine: {result.detail}")
        return f"{self._space}: {result.detail}; {result.milliseconds:.1f} ms for four faces"
