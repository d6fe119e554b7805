"""Which detected person is which enrolled one, by their faces."""

from collections.abc import Iterable, Sequence

from broker_bridge.contract.embeddings import EmbeddingSpace, Vector
from broker_bridge.registry import Registry
from broker_bridge.registry.identities.resolution import resolve_user_ids
from broker_bridge.registry.settings import RegistrySettings

from .active_set import ActivePerson

# Once so much is known of somebody it is asked no more whether they are enrolled, until people have changed.
_ENOUGH_WEIGHT = 8.0


class IdentityLinks:
    """Asks the registry of people. `people_changed` is to be called when somebody is enrolled, or no more,
    while nothing else here is waited for."""

    def __init__(self, registry: Registry, settings: RegistrySettings) -> None:
        self._registry = registry
        self._settings = settings
        self._shown: dict[str, str] = {}
        self._current: set[str] = set()
        """The spaces in which nobody was enrolled since it was asked: most strangers cost no reading then."""

    async def people_changed(self, people: Iterable[ActivePerson]) -> None:
        """Find out anew as whom those in memory are to be shown. Raises RegistryError."""
        present = list(people)
        self._current = set()
        linked = {one.person.user_id for one in present if one.person.user_id}
        self._shown = await resolve_user_ids(self._registry.identity_store, linked)
        for one in present:
            one.checked_weight = 0.0

    def shown(self, user_id: str | None) -> str | None:
        """The user id to tell of a linked person: None for one who is not enrolled any more."""
        return self._shown.get(user_id) if user_id else None

    async def learn(self, user_ids: Iterable[str | None]) -> None:
        """Find out as whom these are to be shown. Raises RegistryError."""
        asked = {user_id for user_id in user_ids if user_id}
        self._shown.update(await resolve_user_ids(self._registry.identity_store, asked))

    async def who(
        self, space: EmbeddingSpace, vectors: Sequence[Vector], scales: Sequence[float] | None = None
    ) -> list[str | None]:
        """Which enrolled person each of `vectors` (float32[d], unit length) surely is. Raises RegistryError.

        The direction of a mean comes nearer to everybody than the faces behind it did: `scales` are their
        consistencies, so that it counts by the mean cosine.
        """
        limits = self._settings.similarities_in(space.id)
        as_bytes = [vector.astype("<f4").tobytes() for vector in vectors]
        index, current = self._registry.identity_indexes.for_space(space), self._current
        if space.id in current:
            nearest = await index.find_all_loaded(as_bytes, limits.floor)
        else:
            _, nearest = await index.find_all(as_bytes, limits.floor)
            # Not to `self._current`: whoever was enrolled during the reading has made that another set.
            current.add(space.id)
        found: list[str | None] = []
        for one, scale in zip(nearest, scales or [1.0] * len(vectors), strict=True):
            is_sure = (
                one is not None
                and one.similarity * scale >= limits.same_person
                and (one.similarity - one.runner_up) * scale >= limits.margin
            )
            found.append(one.key if one is not None and is_sure else None)
        await self.learn(found)
        return found

    async def link(self, people: Iterable[ActivePerson]) -> None:
        """Find out of those in memory who are nobody enrolled whether they are. Raises RegistryError."""
        # Whatever the stream of changes has kept from us: it is asked anew now and then.
        self._current = set()
        asked = [one for one in people if self._is_open(one)]
        for space in sorted({space for one in asked for space in one.faces}):
            await self._link_in(space, [one for one in asked if space in one.faces])
        for one in asked:
            one.checked_weight = one.weight

    def _is_open(self, one: ActivePerson) -> bool:
        grown = one.weight > one.checked_weight
        return (
            one.is_stored
            and self.shown(one.person.user_id) is None
            and grown
            and (one.checked_weight < _ENOUGH_WEIGHT)
        )

    async def _link_in(self, space: str, people: Sequence[ActivePerson]) -> None:
        faces = [one.faces[space] for one in people]
        found = await self.who(
            EmbeddingSpace(space, len(faces[0].mean)),
            [face.unit for face in faces],
            [face.centroid_norm for face in faces],
        )
        links = [
            (one, user_id, one.person.user_id)
            for one, user_id in zip(people, found, strict=True)
            if user_id and user_id not in one.person.not_users
        ]
        await self._registry.tracker_store.link(
            [(one.global_id, user_id, before) for one, user_id, before in links]
        )
        for one, user_id, before in links:
            one.person.user_id, one.person.linked_by = user_id, "face"
            if before:
                one.person.linked_before = (*one.person.linked_before, before)
