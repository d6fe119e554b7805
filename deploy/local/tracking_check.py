"""What the demo asks of tracking: everybody has one number, whatever camera sees them."""

import time
from collections.abc import Callable, Collection
from typing import Any

Call = Callable[[str, str], dict[str, Any]]

_WRITTEN_SECONDS = 15.0
_PAUSE_SECONDS = 0.2


def check_tracking(call: Call, enrolled: Collection[str], cameras: Collection[str]) -> list[str]:
    """Print who was seen where, and return a sentence for each enrolled person who has not one number that
    was seen on all `cameras`. The tracker writes every few seconds: it is waited for."""
    deadline = time.monotonic() + _WRITTEN_SECONDS
    while True:
        people = call("GET", "/api/detected-persons?limit=100")["items"]
        wrong = [sentence for user_id in sorted(enrolled) if (sentence := _wrong(user_id, people, cameras))]
        if not wrong or time.monotonic() > deadline:
            break
        time.sleep(_PAUSE_SECONDS)
    for one in sorted(people, key=lambda person: person["global_id"]):
        where = ", ".join(one["cameras_visited"])
        print(f"  #{one['global_id']:<3} {one['user_id'] or 'nobody enrolled':<16} {where}")
    return wrong


def _wrong(user_id: str, people: list[dict[str, Any]], cameras: Collection[str]) -> str | None:
    numbers = [one["global_id"] for one in people if one["user_id"] == user_id]
    if len(numbers) != 1:
        return f"{user_id} is {len(numbers)} people to the tracker: {numbers}"
    visited = next(one["cameras_visited"] for one in people if one["user_id"] == user_id)
    missing = set(cameras) - set(visited)
    return f"{user_id} was not followed on {', '.join(sorted(missing))}" if missing else None
