"""Keep API keys as hashes, each with a role, an id and perhaps an expiry.

A key is shown once, when it is made. A revoked key stays listed, and its text never works again.
"""

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Literal, get_args

from broker_bridge.common.clock import utc_now
from broker_bridge.contract.errors import ContractError

from .audit import Audit, AuditEntry
from .mongo.client import Document, Mongo

Role = Literal["admin", "operator", "viewer", "source", "edge"]
ROLES: tuple[str, ...] = get_args(Role)
KeyState = Literal["active", "expired", "revoked"]

KEY_UNKNOWN: Final = "key-unknown"
LAST_ADMIN_KEY: Final = "last-admin-key"

_GUARD = "api-keys"
"""The document of `meta` that every revocation changes, so that two at a time conflict."""


@dataclass(frozen=True)
class ApiKey:
    """The key of a request; one of the role `edge` belongs to `device_id`."""

    key_id: str
    name: str
    role: Role
    device_id: str | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True)
class ApiKeyRecord:
    """A key as it is listed, without its text and its hash."""

    key: ApiKey
    created_at: datetime
    revoked_at: datetime | None = None
    revoked: bool = False
    last_used_at: datetime | None = None

    def state(self, at: datetime) -> KeyState:
        """Return whether the key works at this time, and why not."""
        if self.revoked:
            return "revoked"
        expires_at = self.key.expires_at
        return "expired" if expires_at is not None and expires_at <= at else "active"


class ApiKeys:
    """Collection `api_keys`.

    A key has 256 random bits, so that its plain SHA-256 cannot be inverted by search. The id of a key is
    random too: a part of the hash would let a short configured key be guessed.
    """

    def __init__(self, mongo: Mongo, audit: Audit) -> None:
        self._mongo = mongo
        self._audit = audit
        self._keys = mongo.db.api_keys
        self._meta = mongo.db.meta

    async def ensure_ids(self) -> None:
        """Give an id to each key that was made before keys had one."""
        async for found in self._keys.find({"key_id": {"$exists": False}}, {"_id": 1}):
            without_id = {"_id": found["_id"], "key_id": {"$exists": False}}
            await self._keys.update_one(without_id, {"$set": {"key_id": _new_id()}})

    async def create(
        self,
        name: str,
        role: Role,
        secret: str | None = None,
        device_id: str | None = None,
        *,
        expires_at: datetime | None = None,
        by: str | None = None,
    ) -> str:
        """Create a key and return its text, which is not stored."""
        text, _ = await self.issue(name, role, secret, device_id, expires_at=expires_at, by=by)
        return text

    async def issue(
        self,
        name: str,
        role: Role,
        secret: str | None = None,
        device_id: str | None = None,
        *,
        expires_at: datetime | None = None,
        by: str | None = None,
    ) -> tuple[str, ApiKeyRecord]:
        """Create a key and return its text and its record.

        The audit entry names `by` as the author; without it there is none.
        A `secret` that is known already, revoked or not, changes nothing.
        """
        text = secret or f"wfm_{secrets.token_urlsafe(32)}"
        created_at = utc_now()
        key = ApiKey(_new_id(), name, role, device_id, expires_at)
        document = {**vars(key), "created_at": created_at, "revoked": False}

        async def write(session: Any) -> None:
            written = await self._keys.update_one(
                {"_id": _digest(text)}, {"$setOnInsert": document}, upsert=True, session=session
            )
            if by is not None and written.upserted_id is not None:
                entry = AuditEntry(by, "key.create", key.key_id, created_at, after=_audited(key))
                await self._audit.record(entry, session)

        await self._mongo.transact(write)
        return text, ApiKeyRecord(key, created_at)

    async def any(self) -> bool:
        """Return whether there is a key at all, revoked ones included."""
        return await self._keys.find_one({}, {"_id": 1}) is not None

    async def any_admin(self, at: datetime) -> bool:
        """Return whether a key of the role `admin` works at this time."""
        return await self._keys.find_one({"role": "admin", **_working(at)}, {"_id": 1}) is not None

    async def ensure_first(self, secret: str) -> bool:
        """Create the admin key `secret` if there is no key yet.

        Returns whether it was created.
        """
        if await self.any():
            return False
        await self.create("bootstrap", "admin", secret, by="bootstrap")
        return True

    async def find(self, text: str, at: datetime | None = None) -> ApiKey | None:
        """Return the key with this text, or None if it is unknown, revoked or expired."""
        record = await self.authenticate(text, at or utc_now())
        return record.key if record else None

    async def authenticate(self, text: str, at: datetime) -> ApiKeyRecord | None:
        """Return the record of the key with this text, or None unless it works."""
        digest = _digest(text)
        found = await self._keys.find_one({"_id": digest, "revoked": False})
        if found is None or not hmac.compare_digest(found["_id"], digest):
            return None
        record = _to_record(found)
        return record if record.state(at) == "active" else None

    async def working(self, key_ids: Iterable[str], at: datetime) -> set[str]:
        """Return those of `key_ids` that work at this time."""
        query = {"key_id": {"$in": list(key_ids)}, **_working(at)}
        return {found["key_id"] async for found in self._keys.find(query, {"key_id": 1})}

    async def page(
        self, *, before: tuple[datetime, str] | None = None, limit: int = 100
    ) -> list[ApiKeyRecord]:
        """Return up to `limit` keys, newest first.

        They come after the cursor `before` of time and key id.
        """
        query: Document = {}
        if before:
            at, key_id = before
            query = {"$or": [{"created_at": {"$lt": at}}, {"created_at": at, "key_id": {"$lt": key_id}}]}
        found = self._keys.find(query).sort([("created_at", -1), ("key_id", -1)]).limit(limit)
        return [_to_record(document) async for document in found]

    async def revoke(self, key_id: str, *, by: str, at: datetime, force: bool = False) -> ApiKeyRecord:
        """Revoke a key for good and return its record; a revoked one stays as it is.

        Raises ContractError: `key-unknown`, or `last-admin-key` if no other admin key would work, unless with
        `force`.
        """

        async def write(session: Any) -> ApiKeyRecord:
            found = await self._keys.find_one({"key_id": key_id}, session=session)
            if found is None:
                raise ContractError(KEY_UNKNOWN, "no API key has this id: the list of keys shows the ids")
            record = _to_record(found)
            if record.revoked:
                return record
            # In a snapshot two revocations would each see the other admin key: here they conflict.
            await self._meta.update_one(
                {"_id": _GUARD}, {"$inc": {"revocations": 1}}, upsert=True, session=session
            )
            if record.state(at) == "active" and record.key.role == "admin" and not force:
                await self._require_other_admin(key_id, at, session)
            change = {"revoked": True, "revoked_at": at}
            await self._keys.update_one({"key_id": key_id}, {"$set": change}, session=session)
            await self._audit.record(AuditEntry(by, "key.revoke", key_id, at, _audited(record.key)), session)
            return replace(record, revoked=True, revoked_at=at)

        return await self._mongo.transact(write)

    async def revoke_of_device(self, device_id: str, *, by: str, at: datetime, session: Any) -> None:
        """Revoke the keys of a device for good, within the transaction of `session`."""
        keys = self._keys.find({"device_id": device_id, "revoked": False}, session=session)
        for found in await keys.to_list():
            change = {"revoked": True, "revoked_at": at}
            await self._keys.update_one({"_id": found["_id"]}, {"$set": change}, session=session)
            key = _to_record(found).key
            await self._audit.record(AuditEntry(by, "key.revoke", key.key_id, at, _audited(key)), session)

    async def _require_other_admin(self, key_id: str, at: datetime, session: Any) -> None:
        other = {"role": "admin", "key_id": {"$ne": key_id}, **_working(at)}
        if await self._keys.find_one(other, {"_id": 1}, session=session) is None:
            detail = "this is the last admin key that works: create another one first"
            raise ContractError(LAST_ADMIN_KEY, detail)

    async def note_use(self, used_at: dict[str, datetime]) -> None:
        """Write the last use of keys by their ids, unless a newer one is there."""
        for key_id, at in used_at.items():
            await self._keys.update_one({"key_id": key_id}, {"$max": {"last_used_at": at}})


def _new_id() -> str:
    return secrets.token_hex(8)


def _working(at: datetime) -> Document:
    """Return the condition that a key fulfils while it works."""
    return {"revoked": False, "$or": [{"expires_at": None}, {"expires_at": {"$gt": at}}]}


def _to_record(found: Document) -> ApiKeyRecord:
    key = ApiKey(
        found.get("key_id", ""), found["name"], found["role"], found.get("device_id"), found.get("expires_at")
    )
    revoked_at, last_used_at = found.get("revoked_at"), found.get("last_used_at")
    return ApiKeyRecord(key, found["created_at"], revoked_at, found["revoked"], last_used_at)


def _audited(key: ApiKey) -> Document:
    optional = {"device_id": key.device_id, "expires_at": key.expires_at}
    present = {name: value for name, value in optional.items() if value is not None}
    return {"name": key.name, "role": key.role, **present}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
