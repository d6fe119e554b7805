"""Tell a repeated event from another event under the same id.

Device, event type, user id and emotion code are what an event says. All else may differ between two sends of
one event: the outbox drops images, `replayed` and the dating by a trusted clock change metadata and time.
"""

from collections.abc import Mapping
from typing import Any, Final

from broker_bridge.contract.errors import EVENT_CONFLICT
from broker_bridge.contract.messages import Event, Rejection

from .pseudonyms import is_pseudonym

COMPARED_FIELDS: Final = ("event_type", "user_id", "emotion_code")


def find_conflict(event: Event, recorded: Mapping[str, Any] | Event) -> Rejection | None:
    """Return the rejection of an event whose id is recorded with other contents.

    `recorded` is a document of `events`, or an event of the same batch. None for a repeat. The detail names
    the fields and no values.
    """
    first = recorded.__dict__ if isinstance(recorded, Event) else recorded
    differing = [name for name in COMPARED_FIELDS if _differs(name, getattr(event, name), first.get(name))]
    if not differing:
        return None
    detail = f"another event with this id is recorded; it differs in {', '.join(differing)}"
    return Rejection(event_id=event.event_id, code=EVENT_CONFLICT, detail=detail)


def _differs(name: str, sent: str | None, recorded: str | None) -> bool:
    # An erasure may have replaced the user id of either one, and not yet that of the other.
    if name == "user_id" and (is_pseudonym(sent) or is_pseudonym(recorded)):
        return False
    return sent != recorded
