"""Define the result of a check, and turn errors of a check into a result."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from pydantic import JsonValue

from broker_bridge.common.masking import mask

State = Literal["ok", "warning", "fault", "skipped"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CheckResult:
    """The result of the check `name`.

    `detail` is a sentence, `advice` says what to do, and `values` are the same facts for programs. A `fault`
    keeps the device from working, a `warning` may.
    """

    name: str
    state: State
    detail: str
    advice: str | None = None
    values: dict[str, JsonValue] = field(default_factory=dict)


def run_check(name: str, check: Callable[[], CheckResult]) -> CheckResult:
    """Return the result of `check`.

    An unexpected exception becomes a fault of that name.
    """
    try:
        result = check()
        return replace(result, detail=mask(result.detail), advice=result.advice and mask(result.advice))
    except Exception as error:  # noqa: BLE001  # reported, with its traceback in the log
        _log.exception("doctor check failed; report the traceback check=%s", name)
        return CheckResult(
            name,
            "fault",
            f"the check itself failed with {type(error).__name__}: {mask(first_line(error))}",
            "report this with the traceback in the log",
        )


def first_line(error: BaseException) -> str:
    """Return the first line of the message of `error`, at most 300 characters."""
    return str(error).strip().partition("\n")[0][:300] or "no reason given"
