"""The canary of the device's own embedder: at its start, and when the backend orders `run_canary`."""

from collections.abc import Mapping
from pathlib import Path

from pydantic import JsonValue

from broker_bridge.contract.errors import CANARY_FAILED
from device.vision.canary import CanaryResult, check_canary, open_reference
from device.vision.inference.session import ModelError, Session

from .commands import CommandFailedError
from .health import Health


class CanaryRun:
    """Compares `session`, the one that recognises, with the CPU; quarantines its `space` when they differ.

    `run` is for any thread, also while another recognises with `session`: ONNX Runtime's sessions may be run
    by several threads, TensorRT's take turns by a lock of their own. The reference is opened for each run, on
    one thread, and closed after it: a second copy of the model stays in memory no longer than that.
    """

    def __init__(
        self, session: Session, space: str, health: Health, reference_model: Path | None = None
    ) -> None:
        self._session = session
        self._space = space
        self._health = health
        self._reference_model = reference_model

    def run(self) -> CanaryResult:
        """The result, reported to the device's health. A comparison that cannot be made has not passed."""
        try:
            result = check_canary(self._session, open_reference(self._session, self._reference_model))
        except ModelError as error:
            result = CanaryResult(0.0, False, str(error), 0.0)
        if result.passed:
            self._health.clear(CANARY_FAILED)
        else:
            self._health.report(CANARY_FAILED, f"{self._space} is in quarantine: {result.detail}")
        return result

    def handle(self, args: Mapping[str, JsonValue]) -> str:  # noqa: ARG002  # every command has arguments
        """Carries out `run_canary`; returns what was found, raises CommandFailedError when it is bad."""
        result = self.run()
        if not result.passed:
            raise CommandFailedError(f"{self._space} is in quarantine: {result.detail}")
        return f"{self._space}: {result.detail}; {result.milliseconds:.1f} ms for four faces"
