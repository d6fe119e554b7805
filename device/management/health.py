"""The problems of a device, for its heartbeat, and whether they stop recognition."""

import logging
import threading

from broker_bridge.common.masking import mask
from broker_bridge.contract.errors import CANARY_FAILED
from broker_bridge.contract.messages import WireError

from .space_problems import DIFFERENCES

_log = logging.getLogger(__name__)

_QUARANTINE = frozenset({*DIFFERENCES, CANARY_FAILED})
_MAX_DETAIL_CHARACTERS = 1000


class Health:
    """The current problems of a device, one sentence per code; for any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._problems: dict[str, str] = {}

    def report(self, code: str, detail: str) -> None:
        """Add or replace a problem, masked; log it if its sentence is new."""
        detail = mask(detail)
        with self._lock:
            known = self._problems.get(code)
            self._problems[code] = detail[:_MAX_DETAIL_CHARACTERS]
        if known != self._problems[code]:
            _log.error("health problem reported code=%s detail=%r", code, detail)

    def clear(self, code: str) -> None:
        """Remove a problem, if there is one of this code."""
        with self._lock:
            known = self._problems.pop(code, None)
        if known is not None:
            _log.info("health problem cleared code=%s", code)

    def problems(self) -> list[WireError]:
        with self._lock:
            return [WireError(code=code, detail=detail) for code, detail in sorted(self._problems.items())]

    @property
    def is_quarantined(self) -> bool:
        """Whether the device must not match.

        In quarantine the device's vectors do not compare with the registry's.
        """
        with self._lock:
            return not _QUARANTINE.isdisjoint(self._problems)
