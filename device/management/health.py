"""What is wrong with a device, for its heartbeat, and whether it may recognise anybody at all."""

import logging
import threading

from broker_bridge.contract.errors import CANARY_FAILED, MODEL_DIFFERS
from broker_bridge.contract.messages import WireError

_log = logging.getLogger(__name__)

_QUARANTINE = frozenset({MODEL_DIFFERS, CANARY_FAILED})
_LONGEST = 1000


class Health:
    """The problems that a device has now, one sentence per code; for any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._problems: dict[str, str] = {}

    def report(self, code: str, detail: str) -> None:
        """There is a problem; said in the log when it is new or another than before."""
        with self._lock:
            known = self._problems.get(code)
            self._problems[code] = detail[:_LONGEST]
        if known != self._problems[code]:
            _log.error("%s: %s", code, detail)

    def clear(self, code: str) -> None:
        """The problem is over, if there was one."""
        with self._lock:
            known = self._problems.pop(code, None)
        if known is not None:
            _log.info("%s is over", code)

    def problems(self) -> list[WireError]:
        with self._lock:
            return [WireError(code=code, detail=detail) for code, detail in sorted(self._problems.items())]

    @property
    def is_quarantined(self) -> bool:
        """Whether the device's vectors are not to be trusted: it must not say who anybody is."""
        with self._lock:
            return not _QUARANTINE.isdisjoint(self._problems)
