"""Keep the records of embedding spaces.

An administrator, the API's own model or the product makes a record: it has the hash of the model file, the
detector, the alignment and the limits. A space that only a device declared has a dimension and nothing else.
"""

import logging
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from broker_bridge.common.clock import utc_now
from broker_bridge.contract.default_space import DEFAULT_FACE_SPACE
from broker_bridge.contract.embeddings import EmbeddingSpace
from broker_bridge.contract.errors import (
    LIMITS_MISSING,
    SPACE_MISMATCH,
    SPACE_UNKNOWN,
    SPACES_TOO_MANY,
    ContractError,
)
from broker_bridge.contract.spaces import SpaceLimits, SpaceRecord

from .audit import Audit, AuditEntry
from .mongo.client import Document, Mongo
from .mongo.versions import Versions
from .settings import CONFIGURED, ConfiguredLimits

_log = logging.getLogger(__name__)

FROM_DEVICES = 64
"""Most spaces that devices may add; settings of the backend may add more."""
MAX_RECORDS = 32
"""Most spaces with a record: every head has them all."""
_FIELDS = ("dimension", "model_sha256", "detector", "alignment", "limits", "source")
_NONE_CONFIGURED: Mapping[str, ConfiguredLimits] = MappingProxyType({})


class SpaceRegistry:
    """Collection `spaces`, and the limits that are configured over it.

    `cached` is what the last read of this process found: each program reads every few seconds, and before it
    decides about an enrollment.
    """

    def __init__(
        self,
        mongo: Mongo,
        versions: Versions,
        audit: Audit,
        configured: Mapping[str, ConfiguredLimits] = _NONE_CONFIGURED,
    ) -> None:
        self._mongo = mongo
        self._spaces = mongo.db.spaces
        self._versions = versions
        self._audit = audit
        self._configured = configured
        self._cached: Mapping[str, SpaceRecord] = {}

    # Reading

    async def records(self) -> Mapping[str, SpaceRecord]:
        """Return every space by id, with the limits that hold."""
        self._cached = {found["_id"]: self._effective(found) async for found in self._spaces.find({})}
        return self._cached

    @property
    def cached(self) -> Mapping[str, SpaceRecord]:
        """The spaces of the last `records`."""
        return self._cached

    async def record(self, space_id: str) -> SpaceRecord:
        """Return the space with the limits that hold.

        Raises ContractError(`space-unknown`).
        """
        records = await self.records()
        if space_id not in records:
            raise self.unknown(space_id, records)
        return records[space_id]

    async def get(self, space_id: str) -> EmbeddingSpace:
        """Return the space as vectors know it. Raises ContractError(`space-unknown`)."""
        return (await self.record(space_id)).embedding_space

    @staticmethod
    def unknown(space_id: str, known: Iterable[str]) -> ContractError:
        named = ", ".join(sorted(known)) or "none"
        return ContractError(SPACE_UNKNOWN, f"there is no embedding space {space_id!r}; known are: {named}")

    async def dimensions(self, session: Any = None) -> dict[str, int]:
        """Return the dimension by space id."""
        cursor = self._spaces.find({}, {"dimension": 1}, session=session)
        return {found["_id"]: found["dimension"] async for found in cursor}

    async def models(self) -> dict[str, str]:
        """Return the recorded SHA-256 of the model file by space id."""
        return {
            space_id: record.model_sha256
            for space_id, record in (await self.records()).items()
            if record.model_sha256
        }

    def _effective(self, found: Document) -> SpaceRecord:
        record = _from_document(found)
        configured = self._configured.get(record.space)
        if configured is None:
            return record
        limits = configured.over(record.limits)
        return record.model_copy(update={"limits": limits, "source": CONFIGURED if limits else None})

    # Writing

    async def ensure(self, space: EmbeddingSpace) -> EmbeddingSpace:
        """Return the recorded space, and add it if it is new; a recorded hash stays.

        Raises ContractError(`space-mismatch`) if the space is recorded with another dimension.
        """
        new = SpaceRecord(space=space.id, dimension=space.dimension, model_sha256=space.model_sha256)
        return (await self.ensure_record(new)).embedding_space

    async def ensure_record(self, own: SpaceRecord) -> SpaceRecord:
        """Return the recorded space after `own` has filled in what its record lacks.

        `own` lies beside a model file. Its limits replace those that came with an earlier one, and no others.
        A recorded hash stays, so that the caller can tell another model file. Raises
        ContractError(`space-mismatch`) if the space is recorded with another dimension.
        """
        new = {"dimension": own.dimension, "created_at": utc_now()}
        await self._spaces.update_one({"_id": own.space}, {"$setOnInsert": new}, upsert=True)
        for name in ("model_sha256", "detector", "alignment"):
            if getattr(own, name) is not None:
                missing = {"_id": own.space, "dimension": own.dimension, name: None}
                await self._spaces.update_one(missing, {"$set": {name: getattr(own, name)}})
        if own.limits is not None:
            fields = _to_document(own)
            replaceable: Document = {
                "_id": own.space,
                "dimension": own.dimension,
                # Limits belong to their model: those of another file say nothing.
                "model_sha256": own.model_sha256,
                "$or": [{"limits": None}, {"source.kind": "shipped"}],
            }
            limits = {name: fields[name] for name in ("limits", "source")}
            await self._spaces.update_one(replaceable, {"$set": limits})
        known = await self.record(own.space)
        if known.dimension != own.dimension:
            raise ContractError(
                SPACE_MISMATCH, f"{own.space} has {known.dimension} dimensions here, not {own.dimension}"
            )
        return known

    async def declare(self, space: EmbeddingSpace) -> SpaceRecord:
        """Return the space of a device, and add it without hash and limits if it is new.

        At most FROM_DEVICES spaces are added in this way. Raises ContractError(`space-unknown`,
        `space-mismatch`).
        """
        known = await self.dimensions()
        if space.id not in known and len(known) >= FROM_DEVICES:
            raise ContractError(
                SPACE_UNKNOWN, f"{space.id} is not recorded: devices add no spaces past {FROM_DEVICES}"
            )
        return await self.ensure_record(SpaceRecord(space=space.id, dimension=space.dimension))

    async def put(self, new: SpaceRecord, *, by: str) -> tuple[SpaceRecord, bool]:
        """Replace the record of a space.

        Returns it with the limits that hold, and whether it is new. Raises ContractError: `space-mismatch`
        for another dimension or model file while vectors of the space are stored, `spaces-too-many`.
        """
        _check_default(new)

        async def work(session: Any) -> bool:
            # Each enrollment takes a version too: none writes a vector of the old dimension meanwhile.
            await self._versions.take(session)
            found = await self._spaces.find_one({"_id": new.space}, session=session)
            before = _from_document(found) if found else None
            if before is not None and _makes_other_vectors(before, new):
                await self._refuse_if_stored(session, before)
            if before is None or not _has_record(before):
                await self._refuse_too_many(session)
            kept = {"created_at": (found or {}).get("created_at") or utc_now()}
            document = _to_document(new)
            await self._spaces.replace_one({"_id": new.space}, document | kept, upsert=True, session=session)
            if before != new:
                old = _to_document(before) if before else None
                entry = AuditEntry(by, "space.recorded", new.space, utc_now(), old, document)
                await self._audit.record(entry, session)
            return before is None

        is_new = await self._mongo.transact(work)
        return await self.record(new.space), is_new

    async def _refuse_if_stored(self, session: Any, before: SpaceRecord) -> None:
        for collection in (self._mongo.db.templates, self._mongo.db.person_faces):
            if await collection.find_one({"space": before.space}, {"_id": 1}, session=session):
                raise ContractError(
                    SPACE_MISMATCH,
                    f"{before.space} has {before.dimension} dimensions and the model file "
                    f"{before.model_sha256 or 'not recorded'} on record, and vectors of it are stored: "
                    "another model needs a space of its own, or remove this one first",
                )

    async def _refuse_too_many(self, session: Any) -> None:
        found = self._spaces.find({}, session=session)
        count = len([one async for one in found if _has_record(_from_document(one))])
        if count >= MAX_RECORDS:
            raise ContractError(
                SPACES_TOO_MANY,
                f"{count} spaces have a record, and a head has no room for more: remove those not in use",
            )

    async def forget(self, session: Any, space_id: str) -> SpaceRecord | None:
        """Delete the record of a space; return it, or None without one."""
        found = await self._spaces.find_one_and_delete({"_id": space_id}, session=session)
        return _from_document(found) if found else None


def _check_default(new: SpaceRecord) -> None:
    """Refuse another model under the name of the built-in one.

    Raises ContractError(`space-mismatch`).
    """
    if new.space != DEFAULT_FACE_SPACE.space:
        return
    if _makes_other_vectors(DEFAULT_FACE_SPACE, new):
        detail = f"{new.space} is the space of the built-in model: give another model a space of its own"
        raise ContractError(SPACE_MISMATCH, detail)


def _makes_other_vectors(before: SpaceRecord, new: SpaceRecord) -> bool:
    """Return whether vectors under the two records do not compare.

    An unknown hash is no difference.
    """
    is_other_file = None not in (before.model_sha256, new.model_sha256) and (
        before.model_sha256 != new.model_sha256
    )
    return before.dimension != new.dimension or is_other_file


def limits_missing(space_id: str) -> ContractError:
    """Return the refusal of a comparison in a space without limits."""
    return ContractError(
        LIMITS_MISSING,
        f"{space_id} has no limits, so nothing is matched in it: calibrate it (wfm-fleet model calibrate) "
        "or set registry.limits",
    )


def warn_of_missing_limits(records: Mapping[str, SpaceRecord]) -> None:
    """Log each face space in which nothing is matched."""
    for space_id, record in records.items():
        if record.limits is None and space_id.startswith("face:"):
            _log.warning(
                "space has no limits; nothing is matched there: calibrate it or set registry.limits space=%s",
                space_id,
            )


def limits_of(record: SpaceRecord) -> SpaceLimits:
    """Return the limits of a space. Raises ContractError(`limits-missing`)."""
    if record.limits is None:
        raise limits_missing(record.space)
    return record.limits


def _has_record(record: SpaceRecord) -> bool:
    return record.model_sha256 is not None or record.limits is not None


def _from_document(found: Document) -> SpaceRecord:
    """Return the record of a document.

    One of an earlier release has a dimension, and if known a hash.
    """
    fields = {name: found[name] for name in _FIELDS if found.get(name) is not None}
    return SpaceRecord.model_validate({"space": found["_id"], **fields})


def _to_document(record: SpaceRecord) -> Document:
    return record.model_dump(exclude={"space"}, exclude_none=True)
