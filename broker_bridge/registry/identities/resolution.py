"""As whom the enrolled person that a detected one is linked with is shown today."""

from collections.abc import Iterable

from .store import IdentityStore


async def shown_as(people: IdentityStore, user_ids: Iterable[str]) -> dict[str, str]:
    """By user id whom to show: who was merged as whom they went into, and who is deleted not at all."""
    shown: dict[str, str] = {}
    asked = {user_id: user_id for user_id in user_ids}
    while asked:
        known = await people.find_by_id(None, sorted(set(asked.values())))
        further: dict[str, str] = {}
        for user_id, stands_for in asked.items():
            person = known.get(stands_for)
            if person is not None and person.merge is not None:
                further[user_id] = person.merge.into
            elif person is not None and not person.deleted:
                shown[user_id] = stands_for
        asked = further
    return shown
