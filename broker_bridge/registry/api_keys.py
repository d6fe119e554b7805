"""API keys: shown once when made, stored as a hash, each with a role."""

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import Literal, get_args

from broker_bridge.common.clock import utc_now

from .mongo.client import Mongo

Role = Literal["admin", "operator", "viewer", "source", "edge"]
ROLES: tuple[str, ...] = get_args(Role)


@dataclass(frozen=True)
class ApiKey:
    """Who a request comes from; a key of the role `edge` is that of `device_id`."""

    key_id: str
    name: str
    role: Role
    device_id: str | None = None


class ApiKeys:
    """Collection `api_keys`. A key has 256 random bits, so a plain SHA-256 of it cannot be searched."""

    def __init__(self, mongo: Mongo) -> None:
        self._keys = mongo.db.api_keys

    async def create(
        self, name: str, role: Role, secret: str | None = None, device_id: str | None = None
    ) -> str:
        """Make a key and return its text, which is nowhere to be read again."""
        text = secret or f"wfm_{secrets.token_urlsafe(32)}"
        document = {
            "name": name,
            "role": role,
            "device_id": device_id,
            "created_at": utc_now(),
            "revoked": False,
        }
        await self._keys.update_one({"_id": _digest(text)}, {"$setOnInsert": document}, upsert=True)
        return text

    async def any(self) -> bool:
        """Whether there is a key at all, revoked ones included."""
        return await self._keys.find_one({}, {"_id": 1}) is not None

    async def ensure_first(self, secret: str) -> bool:
        """Make `secret` an admin key if there is no key yet; whether it was made."""
        if await self.any():
            return False
        await self.create("bootstrap", "admin", secret)
        return True

    async def find(self, text: str) -> ApiKey | None:
        """The key with this text, or None if there is none or it was revoked."""
        digest = _digest(text)
        found = await self._keys.find_one({"_id": digest, "revoked": False})
        if found is None or not hmac.compare_digest(found["_id"], digest):
            return None
        return ApiKey(found["_id"][:12], found["name"], found["role"], found.get("device_id"))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
