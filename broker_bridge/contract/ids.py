"""Define the identifiers in topics and keys, and the types of events.

An id holds no `/`, `+`, `#`, NUL or white space and is ASCII, so no id widens a topic filter, leaves a folder
or looks like another id.
"""

import re
import secrets
from collections.abc import Mapping
from typing import Annotated, Literal, get_args

from pydantic import StringConstraints

_SLUG = r"[a-z0-9][a-z0-9-]{0,62}"

DeviceId = Annotated[str, StringConstraints(pattern=rf"^{_SLUG}$", max_length=63)]
"""A camera, for example `cam-001`; also its MQTT user name and client id."""

SiteId = Annotated[str, StringConstraints(pattern=rf"^{_SLUG}$", max_length=63)]
"""A site: cameras that share one gallery, for example `lobby`."""

UserId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.@-]{0,127}$", max_length=128)]
"""An identity in the WFM system, for example `EMP-12345` (seed 000 calls it `name`)."""

SpaceId = Annotated[str, StringConstraints(pattern=rf"^(face|gait|speaker):{_SLUG}$", max_length=71)]
"""An embedding space, `<modality>:<model>`, for example `face:arcface-w600k-r50`."""

EventId = Annotated[
    str, StringConstraints(pattern=r"^EV[1-9](\.[0-9]{1,3})?-[0-9]{1,15}-[A-Za-z0-9]{4,32}$", max_length=64)
]
"""`<code>-<milliseconds since 1970>-<random>`, for example `EV1-1736942400000-a1b2c3` (seed 003)."""

TemplateId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
RequestId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Epoch = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{1,32}$")]
"""Random hex that names one history of versions; restoring a backup starts another history."""

Session = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{1,16}$")]
"""One connection of a device: hex that differs from the device's other connections; it has no order."""

DEVICE_ID = re.compile(rf"^{_SLUG}\Z")

EventType = Literal["facial_id", "emotion", "visit", "unknown"]
"""The types of recognition events (seed 003); REST and the dashboard page use these too."""

EVENT_TYPES: tuple[EventType, ...] = get_args(EventType)
EVENT_CODES: Mapping[EventType, str] = {
    "facial_id": "EV1",
    "emotion": "EV2",
    "visit": "EV3",
    "unknown": "EV4",
}
"""The code of each event type, with which event ids begin."""

EMOTION_CODE = re.compile(rf"^{EVENT_CODES['emotion']}\.[0-9]{{1,3}}$")
EmotionCode = Annotated[str, StringConstraints(pattern=EMOTION_CODE.pattern)]
"""The code of one emotion, such as `EV2.2` (seed 003)."""


def new_event_id(code: str, at_ms: int, suffix: str | None = None) -> str:
    """Return a new event id for `code` (`EV1`, `EV2.2`, ...).

    `at_ms` counts milliseconds since 1970. `suffix` replaces the random tail of 12 hex digits, for tests.
    """
    return f"{code}-{at_ms}-{suffix or secrets.token_hex(6)}"
