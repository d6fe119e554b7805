"""One finding about a device, and what turns a check that fails itself into one."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from pydantic import JsonValue

State = Literal["ok", "warning", "fault", "skipped"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CheckResult:
    """What was looked at (`name`) and found: `detail` is a sentence, `advice` says what to do about it, and
    `values` are the same facts for programs. A `fault` keeps the device from its work, a `warning` may."""

    name: str
    state: State
    detail: str
    advice: str | None = None
    values: dict[str, JsonValue] = field(default_factory=dict)


def guarded(name: str, examine: Callable[[], CheckResult]) -> CheckResult:
    """What `examine` finds. An exception that it did not expect is a fault of that name, with its type, so
    that the other checks still run."""
    try:
        return examine()
    except Exception as error:  # noqa: BLE001  # told, with its traceback in the log
        _log.exception("the check %s failed", name)
        return CheckResult(
            name,
            "fault",
            f"the check itself failed with {type(error).__name__}: {first_line(error)}",
            "report this with the traceback in the log",
        )


def first_line(error: BaseException) -> str:
    """The beginning of what `error` says, for one line."""
    return str(error).strip().partition("\n")[0][:300] or "no reason given"
