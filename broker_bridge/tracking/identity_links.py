"""Link active persons to enrolled identities by their faces."""

from collections.abc import Iterable, Sequence

from broker_bridge.contract.embeddings import EmbeddingSpace, Vector
from broker_bridge.registry import Registry
from broker_bridge.registry.identities.resolution import resolve_user_ids

from .active_person import ActivePerson

# A person with this weight and no link is not searched again until the enrolled identities change.
_MAX_CHECKED_WEIGHT = 8.0


class IdentityLinks:
    """The enrolled identities of the active persons.

    Call `refresh` when an identity is enrolled, changed or deleted, while no other method runs.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._shown: dict[str, str] = {}
        self._current: set[str] = set()
        """The spaces whose identity index is up to date: a search there costs no read."""

    async def refresh(self, persons: Iterable[ActivePerson]) -> None:
        """Read again which user id to publish for each linked person.

        Raises RegistryError.
        """
        persons = list(persons)
        self._current = set()
        linked = {active.record.user_id for active in persons if active.record.user_id}
        self._shown = await resolve_user_ids(self._registry.identity_store, linked)
        for active in persons:
            active.checked_weight = 0.0

    def shown_user_id(self, user_id: str | None) -> str | None:
        """Return the user id to publish for a linked person.

        None while the identity is deleted.
        """
        return self._shown.get(user_id) if user_id else None

    async def load_shown(self, user_ids: Iterable[str | None]) -> None:
        """Read which user ids to publish for these. Raises RegistryError."""
        linked = {user_id for user_id in user_ids if user_id}
        self._shown.update(await resolve_user_ids(self._registry.identity_store, linked))

    async def find_identities(
        self, space: EmbeddingSpace, vectors: Sequence[Vector], norms: Sequence[float] | None = None
    ) -> list[str | None]:
        """Return the sure identity of each of `vectors` (float32[d], unit length).

        The direction of a centroid is nearer to all faces than the faces behind it are. `norms` are the
        centroid norms: with them the mean cosine decides. None has one in a space without limits. Raises
        RegistryError.
        """
        record = self._registry.spaces.cached.get(space.id)
        limits = record.limits if record else None
        if limits is None:
            return [None] * len(vectors)
        as_bytes = [vector.astype("<f4").tobytes() for vector in vectors]
        index, current = self._registry.identity_indexes.for_space(space), self._current
        if space.id in current:
            nearest = await index.find_all_loaded(as_bytes, limits.enrollment_floor)
        else:
            _, nearest = await index.find_all(as_bytes, limits.enrollment_floor)
            # Not `self._current`: a refresh during the read has replaced that set.
            current.add(space.id)
        found: list[str | None] = []
        for one, norm in zip(nearest, norms or [1.0] * len(vectors), strict=True):
            is_sure = (
                one is not None
                and one.similarity * norm >= limits.same_person
                and (one.similarity - one.runner_up) * norm >= limits.margin
            )
            found.append(one.key if one is not None and is_sure else None)
        await self.load_shown(found)
        return found

    async def link_identities(self, persons: Iterable[ActivePerson]) -> None:
        """Search the identities of unlinked persons and link those found.

        Raises RegistryError.
        """
        # The change stream may have missed an enrollment: every round searches up-to-date indexes.
        self._current = set()
        open_ = [active for active in persons if self._is_open(active)]
        for space in sorted({space for active in open_ for space in active.centroids}):
            await self._link_in(space, [active for active in open_ if space in active.centroids])
        for active in open_:
            active.checked_weight = active.weight

    def _is_open(self, active: ActivePerson) -> bool:
        """Return whether an unlinked person has new faces since its last search."""
        return (
            active.is_stored
            and self.shown_user_id(active.record.user_id) is None
            and active.weight > active.checked_weight
            and active.checked_weight < _MAX_CHECKED_WEIGHT
        )

    async def _link_in(self, space: str, persons: Sequence[ActivePerson]) -> None:
        centroids = [active.centroids[space] for active in persons]
        found = await self.find_identities(
            EmbeddingSpace(space, len(centroids[0].mean)),
            [centroid.unit for centroid in centroids],
            [centroid.centroid_norm for centroid in centroids],
        )
        links = [
            (active, user_id, active.record.user_id)
            for active, user_id in zip(persons, found, strict=True)
            if user_id and user_id not in active.record.not_users
        ]
        await self._registry.tracker_store.link(
            [(active.global_id, user_id, before) for active, user_id, before in links]
        )
        for active, user_id, before in links:
            record = active.record
            record.user_id, record.linked_by = user_id, "face"
            if before:
                record.linked_before = (*record.linked_before, before)
