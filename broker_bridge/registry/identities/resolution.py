"""Resolve user ids to the identities that stand for them today."""

from collections.abc import Iterable

from .store import IdentityStore


async def resolve_user_ids(store: IdentityStore, user_ids: Iterable[str]) -> dict[str, str]:
    """Return the user id that each of `user_ids` is shown as.

    A merged identity is shown as the identity that it was merged into; a deleted one is left out.
    """
    resolved: dict[str, str] = {}
    open_ids = {user_id: user_id for user_id in user_ids}
    while open_ids:
        identities = await store.find_by_id(None, sorted(set(open_ids.values())))
        merged: dict[str, str] = {}
        for user_id, shown_as in open_ids.items():
            identity = identities.get(shown_as)
            if identity is not None and identity.merge is not None:
                merged[user_id] = identity.merge.into
            elif identity is not None and not identity.deleted:
                resolved[user_id] = shown_as
        open_ids = merged
    return resolved
