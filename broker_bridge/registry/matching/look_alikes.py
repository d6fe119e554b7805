"""Look-alikes: who else is near to a face that an enrollment brings, and what becomes of it then."""

import asyncio
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from broker_bridge.contract.embeddings import EmbeddingSpace, Vector, to_array
from broker_bridge.contract.errors import ContractError
from broker_bridge.registry.identities.model import (
    EnrollIdentity,
    Identity,
    IdentityChange,
    IdentityDelta,
    active_templates,
)
from broker_bridge.registry.identities.outcome import ChangeOutcome
from broker_bridge.registry.identities.rules import consent_after
from broker_bridge.registry.identities.service import BULK, Identities
from broker_bridge.registry.identities.store import IdentityStore
from broker_bridge.registry.settings import RegistrySettings
from broker_bridge.registry.spaces import SpaceRegistry
from broker_bridge.vectors.index import Nearest

from .identity_index import IdentityIndexes

LOOK_ALIKE = "look-alike"
# Whoever looks like more people than that is not told apart by a longer list.
_MOST_PER_ORDER = 5


@dataclass(frozen=True)
class LookAlike:
    """Somebody else who is near: `similarity` is the cosine of the nearest templates in `space`."""

    user_id: str
    similarity: float
    space: str


@dataclass(frozen=True)
class JudgedChange:
    """An order and like whom its new templates look, most similar first; noted in `order` for the audit.

    With `error` it is not to be carried out.
    """

    order: IdentityChange
    look_alikes: tuple[LookAlike, ...] = ()
    error: ContractError | None = None


@dataclass(frozen=True)
class CheckedChange:
    """What became of an order, and like whom it looks."""

    outcome: ChangeOutcome
    look_alikes: tuple[LookAlike, ...] = ()


@dataclass
class _Faces:
    """New templates of one space in the order of their orders: row i is of `orders[i]` and of `owners[i]`.

    Those that may not be sent are found by nobody: they are not `sent`.
    """

    space: EmbeddingSpace
    limit: float
    vectors: list[bytes] = field(default_factory=list)
    orders: list[int] = field(default_factory=list)
    owners: list[str] = field(default_factory=list)
    sent: list[bool] = field(default_factory=list)

    def first(self, pending: int) -> int:
        """The first row that is not of one of the `pending` orders, which come first."""
        return bisect_left(self.orders, pending)

    def matrix(self) -> Vector:
        return np.stack([to_array(vector) for vector in self.vectors])


class _Near:
    """Like whom each order looks, by (user id, space)."""

    def __init__(self) -> None:
        self._similarity: dict[int, dict[tuple[str, str], float]] = {}

    def note(self, order: int, user_id: str, space: str, similarity: float) -> None:
        known = self._similarity.setdefault(order, {})
        known[user_id, space] = max(similarity, known.get((user_id, space), -1.0))

    def of(self, order: int) -> tuple[LookAlike, ...]:
        found = [
            LookAlike(user_id, min(1.0, round(similarity, 4)), space)
            for (user_id, space), similarity in self._similarity.get(order, {}).items()
        ]
        return tuple(sorted(found, key=lambda one: (-one.similarity, one.user_id))[:_MOST_PER_ORDER])


class LookAlikes:
    """Judges orders before they are carried out. Two requests at the same instant may not see each other.

    In a rehearsal the indexes are asked, and told nothing: what is carried out by `identities` is taken back.
    """

    def __init__(
        self,
        *,
        identities: Identities,
        store: IdentityStore,
        spaces: SpaceRegistry,
        indexes: IdentityIndexes,
        settings: RegistrySettings,
        is_dry_run: bool = False,
    ) -> None:
        self._identities = identities
        self._store = store
        self._spaces = spaces
        self._indexes = indexes
        self._settings = settings
        self._is_dry_run = is_dry_run

    async def enroll(self, order: EnrollIdentity) -> CheckedChange:
        """Judge an order and carry it out; raises ContractError, also `look-alike`, and RegistryError."""
        (checked,) = await self.carry_out(await self.judge_changes([order]))
        checked.outcome.result()
        return checked

    async def carry_out(self, judged: Sequence[JudgedChange]) -> list[CheckedChange]:
        """Carry out what may be; an order that is refused is its own outcome. Raises RegistryError."""
        outcomes = await self._identities.apply([one.order for one in judged if one.error is None])
        if not self._is_dry_run:
            await self._follow(outcomes)
        done = iter(outcomes)
        return [
            CheckedChange(
                next(done) if one.error is None else ChangeOutcome(one.order, error=one.error),
                one.look_alikes,
            )
            for one in judged
        ]

    async def _follow(self, outcomes: Sequence[ChangeOutcome]) -> None:
        """Spare the indexes to read what was written here, if it was one transaction and is known whole."""
        changed = [one for one in outcomes if one.identity and one.changed]
        if not changed or len(outcomes) > BULK or any(one.templates is None for one in changed):
            return
        known = [
            IdentityDelta(one.identity, active_templates(one.identity, one.templates or ()))
            for one in changed
            if one.identity
        ]
        await self._indexes.apply_changes(known, outcomes[0].version, outcomes[-1].version)

    async def judge_changes(
        self, orders: Sequence[IdentityChange], pending: Sequence[IdentityChange] = ()
    ) -> list[JudgedChange]:
        """Each of `orders` with the other people whom its new templates are near to. Raises RegistryError.

        Others are the nearest in the registry, those of earlier `orders`, and those of `pending`: orders that
        are being carried out meanwhile. Templates that a person holds already are not new. Best called
        with a few hundred orders: for one search, and one comparison of all with each other.
        """
        if self._settings.look_alikes == "ignore":
            return [JudgedChange(order) for order in orders]
        both = [*pending, *orders]
        batches = await self._batches(both)
        near = _Near()
        for faces in batches:
            await self._search(faces, len(pending), near)
        pairs = await asyncio.to_thread(_pairs, batches, len(pending))
        refuse = self._settings.look_alikes == "refuse"
        refused: set[int] = set()
        judged = []
        for number, order in enumerate(orders, start=len(pending)):
            for earlier, owner, space, similarity in pairs.get(number, ()):
                if earlier not in refused:
                    near.note(number, owner, space, similarity)
            judged.append(_judged(order, near.of(number), refuse=refuse))
            if judged[-1].error:
                refused.add(number)
        return judged

    async def _batches(self, orders: Sequence[IdentityChange]) -> list[_Faces]:
        """New templates of the spaces that there are, of the right length: the others will be refused."""
        if not any(isinstance(order, EnrollIdentity) and order.templates for order in orders):
            return []
        dimensions = await self._spaces.dimensions()
        owners, people, held = await self._owners(orders)
        batches: dict[str, _Faces] = {}
        for number, (order, owner) in enumerate(zip(orders, owners, strict=True)):
            if not isinstance(order, EnrollIdentity):
                continue
            for one in order.templates:
                known = len(one.vector) == 4 * dimensions.get(one.space, -1)
                if not known or (one.space, one.vector) in held.get(owner, ()):
                    continue
                if one.space not in batches:
                    space = EmbeddingSpace(one.space, dimensions[one.space])
                    batches[one.space] = _Faces(space, self._settings.similarities_in(one.space).look_alike)
                faces = batches[one.space]
                faces.vectors.append(one.vector)
                faces.orders.append(number)
                faces.owners.append(owner)
                consent = consent_after(people.get(owner), order, [one.space], self._settings.rules)
                faces.sent.append(consent[one.modality])
        return list(batches.values())

    async def _owners(
        self, orders: Sequence[IdentityChange]
    ) -> tuple[list[str], Mapping[str, Identity], Mapping[str, set[tuple[str, bytes]]]]:
        """Of each order the user id that it is about; by user id those whom there are, and what they hold."""
        keys = [order.external.text for order in orders if order.external]
        by_key = await self._store.find_by_external_key(None, keys) if keys else {}
        ids = {key: person.user_id for key, person in by_key.items()}
        owners = [
            ids.setdefault(order.external.text, order.user_id) if order.external else order.user_id
            for order in orders
        ]
        named = {order.user_id for order in orders if not order.external}
        people = {person.user_id: person for person in by_key.values()}
        people |= await self._store.find_by_id(None, named) if named else {}
        live = sorted(person.user_id for person in people.values() if not person.deleted)
        held = await self._store.templates_of(None, live)
        return (
            owners,
            people,
            {user_id: {(one.space, one.vector) for one in templates} for user_id, templates in held.items()},
        )

    async def _search(self, faces: _Faces, pending: int, near: _Near) -> None:
        first = faces.first(pending)
        if first == len(faces.vectors):
            return
        index = self._indexes.for_space(faces.space)
        _, found = await index.find_all(faces.vectors[first:], faces.limit)
        for order, owner, nearest in zip(faces.orders[first:], faces.owners[first:], found, strict=True):
            other = _other(owner, nearest)
            if other and other[1] >= faces.limit:
                near.note(order, other[0], faces.space.id, other[1])


def _other(owner: str, nearest: Nearest | None) -> tuple[str, float] | None:
    """The nearest person who is not `owner`, and how near."""
    if nearest is None:
        return None
    if nearest.key != owner:
        return nearest.key, nearest.similarity
    return None if nearest.runner_up_key is None else (nearest.runner_up_key, nearest.runner_up)


def _pairs(batches: Sequence[_Faces], pending: int) -> dict[int, list[tuple[int, str, str, float]]]:
    """For each order those earlier ones of other people that are near: order, owner, space, similarity."""
    found: dict[int, list[tuple[int, str, str, float]]] = {}
    for faces in batches:
        for row, column, similarity in _near_rows(faces.matrix(), faces.first(pending), faces.limit):
            if faces.sent[column] and faces.owners[row] != faces.owners[column]:
                pair = (faces.orders[column], faces.owners[column], faces.space.id, similarity)
                found.setdefault(faces.orders[row], []).append(pair)
    return found


def _near_rows(vectors: Vector, first: int, limit: float) -> Iterator[tuple[int, int, float]]:
    """Rows from `first` on, earlier rows that have a cosine of `limit` or more with them, and that cosine."""
    for row in range(first, len(vectors)):
        # Not a product of matrices: the threads of BLAS would wait for each other, spinning.
        similarities = np.vecdot(vectors[:row], vectors[row])
        for column in np.flatnonzero(similarities >= limit).tolist():
            yield row, column, float(similarities[column])


def _judged(order: IdentityChange, look_alikes: tuple[LookAlike, ...], *, refuse: bool) -> JudgedChange:
    if not look_alikes or not isinstance(order, EnrollIdentity):
        return JudgedChange(order)
    noted = [
        {"user_id": one.user_id, "similarity": one.similarity, "space": one.space} for one in look_alikes
    ]
    error = None
    if refuse:
        nearest = look_alikes[0]
        detail = (
            f"in {nearest.space} this looks like {nearest.user_id} (similarity {nearest.similarity:.2f}): "
            "nobody is enrolled who looks like somebody else (registry.look_alikes)"
        )
        error = ContractError(LOOK_ALIKE, detail)
    return JudgedChange(
        replace(order, audit_details={**order.audit_details, "look_alikes": noted}), look_alikes, error
    )
