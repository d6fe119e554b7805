"""Find other identities with a similar face before an enrollment is applied."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from broker_bridge.contract.errors import ContractError
from broker_bridge.contract.spaces import SpaceRecord
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

from .identity_index import IdentityIndexes
from .near_faces import (
    LookAlike,
    NewTemplate,
    SimilarityTable,
    SpaceBatch,
    near_pairs_by_change,
    nearest_other,
)

LOOK_ALIKE = "look-alike"


@dataclass(frozen=True)
class JudgedChange:
    """A change with its look-alikes, most similar first.

    The audit details of `change` name them.

    A change with `error` is not applied. `not_compared` are the spaces of new templates that have no limits.
    """

    change: IdentityChange
    look_alikes: tuple[LookAlike, ...] = ()
    error: ContractError | None = None
    not_compared: tuple[str, ...] = ()


@dataclass(frozen=True)
class CheckedChange:
    """The outcome of a change, with its look-alikes.

    `not_compared` are the spaces of new templates that have no limits: look-alikes there are not known.
    """

    outcome: ChangeOutcome
    look_alikes: tuple[LookAlike, ...] = ()
    not_compared: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Owners:
    """The owners of a batch of changes.

    These are the user id of each change, and the known identities and stored (space, vector) pairs by
    user id.
    """

    user_ids: Sequence[str]
    identities: Mapping[str, Identity]
    stored: Mapping[str, set[tuple[str, bytes]]]


class LookAlikes:
    """Judge changes before they are applied.

    Two concurrent requests may miss each other's faces.

    In a dry run the indexes are searched and not updated, since `identities` rolls its writes back.
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

    async def enroll(self, change: EnrollIdentity) -> CheckedChange:
        """Judge a change and apply it.

        Raises ContractError, also `look-alike`, and RegistryError.
        """
        (checked,) = await self.apply_judged(await self.judge_changes([change]))
        checked.outcome.result()
        return checked

    async def apply_judged(self, judged: Sequence[JudgedChange]) -> list[CheckedChange]:
        """Apply the changes without an error; an error is the outcome of its change.

        Raises RegistryError.
        """
        outcomes = await self._identities.apply([item.change for item in judged if item.error is None])
        if not self._is_dry_run:
            await self._update_indexes(outcomes)
        applied = iter(outcomes)
        return [
            CheckedChange(
                next(applied) if item.error is None else ChangeOutcome(item.change, error=item.error),
                item.look_alikes,
                item.not_compared,
            )
            for item in judged
        ]

    async def _update_indexes(self, outcomes: Sequence[ChangeOutcome]) -> None:
        """Pass the writes to the indexes, so that they need not read them from MongoDB.

        Only the complete result of one transaction can be passed: its versions have no gap.
        """
        changed = [outcome for outcome in outcomes if outcome.identity and outcome.changed]
        if not changed or len(outcomes) > BULK or any(outcome.templates is None for outcome in changed):
            return
        deltas = [
            IdentityDelta(outcome.identity, active_templates(outcome.identity, outcome.templates or ()))
            for outcome in changed
            if outcome.identity
        ]
        await self._indexes.apply_changes(deltas, outcomes[0].version, outcomes[-1].version)

    async def judge_changes(
        self, changes: Sequence[IdentityChange], pending: Sequence[IdentityChange] = ()
    ) -> list[JudgedChange]:
        """Return each of `changes` with its look-alikes.

        Those are other identities whose faces resemble its new templates.

        Compared are the registry, earlier `changes`, and `pending`: changes that are being applied. A
        template that its identity already has is not new. A batch of a few hundred changes needs one search
        and one comparison of all with each other. Raises RegistryError.
        """
        if self._settings.look_alikes == "ignore":
            return [JudgedChange(change) for change in changes]
        first = len(pending)
        batches = await self._batches([*pending, *changes])
        table = SimilarityTable()
        for batch in batches:
            await self._search_registry(batch, first, table)
        pairs = await asyncio.to_thread(near_pairs_by_change, batches, first)
        refuse = self._settings.look_alikes == "refuse"
        rejected: set[int] = set()
        judged = []
        for position, change in enumerate(changes, start=first):
            for pair in pairs.get(position, ()):
                if pair.earlier not in rejected:
                    table.add(position, pair.owner, pair.space, pair.similarity)
            judged.append(
                replace(
                    _judge(change, table.look_alikes_of(position), refuse=refuse),
                    not_compared=_without_limits(change, self._spaces.cached),
                )
            )
            if judged[-1].error:
                rejected.add(position)
        return judged

    async def _batches(self, changes: Sequence[IdentityChange]) -> list[SpaceBatch]:
        """Return the new templates by space.

        Unknown spaces and wrong lengths are rejected later; spaces without limits are not compared.
        """
        if not any(isinstance(change, EnrollIdentity) and change.templates for change in changes):
            return []
        records = await self._spaces.records()
        owners = await self._owners(changes)
        batches: dict[str, SpaceBatch] = {}
        for position, (change, owner) in enumerate(zip(changes, owners.user_ids, strict=True)):
            if not isinstance(change, EnrollIdentity):
                continue
            for template in change.templates:
                space = template.space
                record = records.get(space)
                if record is None or record.limits is None or len(template.vector) != 4 * record.dimension:
                    continue
                if (space, template.vector) in owners.stored.get(owner, ()):
                    continue
                if space not in batches:
                    batches[space] = SpaceBatch(record.embedding_space, record.limits.look_alike)
                consent = consent_after(owners.identities.get(owner), change, [space], self._settings.rules)
                row = NewTemplate(template.vector, position, owner, consent[template.modality])
                batches[space].rows.append(row)
        return list(batches.values())

    async def _owners(self, changes: Sequence[IdentityChange]) -> _Owners:
        keys = [change.external.text for change in changes if change.external]
        by_key = await self._store.find_by_external_key(None, keys) if keys else {}
        ids = {key: identity.user_id for key, identity in by_key.items()}
        user_ids = [
            ids.setdefault(change.external.text, change.user_id) if change.external else change.user_id
            for change in changes
        ]
        named = {change.user_id for change in changes if not change.external}
        identities = {identity.user_id: identity for identity in by_key.values()}
        identities |= await self._store.find_by_id(None, named) if named else {}
        live = sorted(identity.user_id for identity in identities.values() if not identity.deleted)
        stored = {
            user_id: {(template.space, template.vector) for template in templates}
            for user_id, templates in (await self._store.templates_of(None, live)).items()
        }
        return _Owners(user_ids, identities, stored)

    async def _search_registry(self, batch: SpaceBatch, first: int, table: SimilarityTable) -> None:
        rows = batch.rows_from(first)
        if not rows:
            return
        index = self._indexes.for_space(batch.space)
        _, found = await index.find_all([row.vector for row in rows], batch.limit)
        for row, nearest in zip(rows, found, strict=True):
            other = nearest_other(row.owner, nearest)
            if other and other[1] >= batch.limit:
                table.add(row.change, other[0], batch.space.id, other[1])


def _without_limits(change: IdentityChange, records: Mapping[str, SpaceRecord]) -> tuple[str, ...]:
    """Return the known spaces of new templates that have no limits."""
    if not isinstance(change, EnrollIdentity):
        return ()
    spaces = {template.space for template in change.templates}
    return tuple(sorted(space for space in spaces if space in records and records[space].limits is None))


def _judge(change: IdentityChange, look_alikes: tuple[LookAlike, ...], *, refuse: bool) -> JudgedChange:
    if not look_alikes or not isinstance(change, EnrollIdentity):
        return JudgedChange(change)
    details = [
        {"user_id": near.user_id, "similarity": near.similarity, "space": near.space} for near in look_alikes
    ]
    error = None
    if refuse:
        nearest = look_alikes[0]
        detail = (
            f"the face resembles {nearest.user_id} in {nearest.space} (similarity {nearest.similarity:.2f}); "
            "registry.look_alikes rejects similar faces of different identities"
        )
        error = ContractError(LOOK_ALIKE, detail)
    change = replace(change, audit_details={**change.audit_details, "look_alikes": details})
    return JudgedChange(change, look_alikes, error)
