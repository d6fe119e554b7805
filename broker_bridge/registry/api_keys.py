"""Keep API keys as hashes, each with a role.

A key is shown once, when it is made.
"""

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
    """The key of a request; one of the role `edge` belongs to `device_id`."""

    key_id: str
    name: str
    role: Role
    device_id: str | None = None


class ApiKeys:
    """Collection `api_keys`.

    A key has 256 random bits, so that its plain SHA-256 cannot be inverted by search.
    """

    def __init__(self, mongo: Mongo) -> None:
        self._keys = mongo.db.api_keys

    async def create(
        self, name: str, role: Role, secret: str | None = None, device_id: str | None = None
    ) -> str:
        """Create a key and return its text, which is not stored."""
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
        """Return whether there is a key at all, revoked ones included."""
        return await self._keys.find_one({}, {"_id": 1}) is not None

    async def ensure_first(self, secret: str) -> bool:
        """Create the admin key `secret` if there is no key yet.

        Returns whether it was created.
        """
        if await self.any():
            return False
        await self.create("bootstrap", "admin", secret)
        return True

    async def find(self, text: str) -> ApiKey | None:
        """Return the key with this text, or None if it is unknown or revoked."""
        digest = _digest(text)
        found = await self._keys.find_one({"_id": digest, "revoked": False})
        if found is None or not hmac.compare_digest(found["_id"], digest):
            return None
        return ApiKey(found["_id"][:12], found["name"], found["role"], found.get("device_id"))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
