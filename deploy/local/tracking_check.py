"""Check the tracking of the demo: one global id per person over all cameras."""

import time
from collections.abc import Callable, Collection
from typing import Any

Call = Callable[[str, str], dict[str, Any]]

_WRITTEN_SECONDS = 15.0
_PAUSE_SECONDS = 0.2


def check_tracking(call: Call, enrolled: Collection[str], cameras: Collection[str]) -> list[str]:
    """Print the detected persons and return the problems of enrolled ones.

    Each identity of `enrolled` needs exactly one detected person, seen by all `cameras`. The tracker writes
    every few seconds, so the check waits for it.
    """
    deadline = time.monotonic() + _WRITTEN_SECONDS
    while True:
        detected = call("GET", "/api/detected-persons?limit=100")["items"]
        problems = [
            sentence
            for user_id in sorted(enrolled)
            if (sentence := _find_problem(user_id, detected, cameras))
        ]
        if not problems or time.monotonic() > deadline:
            break
        time.sleep(_PAUSE_SECONDS)
    for item in sorted(detected, key=lambda item: item["global_id"]):
        where = ", ".join(item["cameras_visited"])
        print(f"  #{item['global_id']:<3} {item['user_id'] or 'not enrolled':<16} {where}")
    return problems


def _find_problem(user_id: str, detected: list[dict[str, Any]], cameras: Collection[str]) -> str | None:
    global_ids = [item["global_id"] for item in detected if item["user_id"] == user_id]
    if len(global_ids) != 1:
        return f"{user_id} has {len(global_ids)} global ids instead of 1: {global_ids}"
    visited = next(item["cameras_visited"] for item in detected if item["user_id"] == user_id)
    missing = set(cameras) - set(visited)
    return f"{user_id} was not seen by {', '.join(sorted(missing))}" if missing else None
