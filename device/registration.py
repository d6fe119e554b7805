"""Visitors: in a site whose policy is `visitors`, whoever is unknown is registered (DESIGN 3.3)."""

import logging
import random
import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from broker_bridge.contract import channels
from broker_bridge.contract.channels import Decoded
from broker_bridge.contract.errors import DEVICE_UNKNOWN, SPACE_UNKNOWN
from broker_bridge.contract.messages import EnrollmentPolicy, Registered, RegisterIdentity, SyncHead

from .backoff import Backoff
from .link import Link
from .store.db_manager import DatabaseManager
from .store.registrations import RegistrationStore

_log = logging.getLogger(__name__)

_POLICY_KEY = "enrollment_policy"
_RESEND = Backoff(base=5.0, cap=300.0)
_EXPIRY_SECONDS = 600.0
# Refusals that end by themselves.
_FOR_NOW = frozenset({DEVICE_UNKNOWN, SPACE_UNKNOWN})


@dataclass
class _Waiting:
    registration: RegisterIdentity
    attempts: int
    due_at: float


class Registrations:
    """Asks the registry about unknown people, once each, until it answers.

    `offer` is for any thread, all else runs in the link's (see `LinkListener`). `counts` has `offered`,
    `created`, `exists`, `rejected` and `dropped` (too many waited, a day went by without an answer, or
    `distrusted` says that the device's vectors are not to be trusted).
    """

    def __init__(
        self,
        link: Link,
        db: DatabaseManager,
        *,
        source: random.Random,
        utc_now: Callable[[], datetime],
        distrusted: Callable[[], bool] = lambda: False,
    ) -> None:
        self._link = link
        self._db = db
        self._store = RegistrationStore(db.connection, utc_now=utc_now)
        self._random = source
        self._distrusted = distrusted
        self._expire_at = float("-inf")
        self._online = False
        remembered = db.get_config(_POLICY_KEY)
        self._policy: EnrollmentPolicy = "visitors" if remembered == "visitors" else "closed"
        self._waiting = {one.request_id: _Waiting(one, 0, 0.0) for one in self._store.waiting()}
        self.counts: Counter[str] = Counter()

    @property
    def registers_visitors(self) -> bool:
        """Whether the site's policy wants unknown people registered."""
        return self._policy == "visitors"

    def offer(self, space: str, vector: bytes, quality: float | None = None) -> None:
        """An unknown person, confirmed: `vector` is float32[d] of unit length as bytes. Raises StoreError."""
        if not self.registers_visitors:
            return
        registration = RegisterIdentity(
            request_id=f"reg-{secrets.token_hex(8)}",
            space=space,
            vector=vector,
            quality=quality,
            kind="visitor",
        )
        dropped = self._store.put(registration)
        self._link.submit(lambda: self._take_over(registration, dropped))

    def _take_over(self, registration: RegisterIdentity, dropped: int) -> None:
        self.counts["offered"] += 1
        self._waiting[registration.request_id] = _Waiting(registration, 0, 0.0)
        self._drop(dropped)

    def _drop(self, dropped: int) -> None:
        """Wait no longer for what is not in the store any more."""
        if dropped:
            self.counts["dropped"] += dropped
            kept = {one.request_id for one in self._store.waiting()}
            self._waiting = {key: one for key, one in self._waiting.items() if key in kept}

    def connected(self, now: float) -> None:
        self._online = True
        for one in self._waiting.values():
            one.due_at = min(one.due_at, now + self._random.uniform(0.0, 1.0))

    def disconnected(self) -> None:
        self._online = False

    def receive(self, decoded: Decoded[Any], now: float) -> None:  # noqa: ARG002  # part of LinkListener
        if decoded.channel is channels.SYNC_HEAD:
            self._take_policy(decoded.message)
        elif decoded.channel is channels.REGISTERED:
            self._settle(decoded.message)

    def _take_policy(self, head: SyncHead) -> None:
        policy = head.enrollment_policy or "closed"
        if policy != self._policy:
            # Followed first: a disk that is full must not keep a site from closing.
            self._policy = policy
            _log.info("the site's enrollment policy is now %s", policy)
            self._db.set_config(_POLICY_KEY, policy)

    def _settle(self, answer: Registered) -> None:
        if answer.request_id not in self._waiting:
            return
        if answer.error is not None and answer.error.code in _FOR_NOW:
            return
        self._store.settle(answer.request_id)
        del self._waiting[answer.request_id]
        self.counts[answer.result] += 1
        if answer.error is not None:
            _log.warning("a visitor was not registered: %s: %s", answer.error.code, answer.error.detail)

    def tick(self, now: float) -> float | None:
        if not self._waiting:
            return None
        if self._distrusted():
            # Under a model that is not the registry's they would be somebody else.
            self._drop(self._store.clear())
        elif now >= self._expire_at:
            self._expire_at = now + _EXPIRY_SECONDS
            self._drop(self._store.expire())
        if not self._online or not self._waiting:
            return None
        for one in self._waiting.values():
            if one.due_at <= now:
                if self._link.publish(channels.REGISTER, one.registration.to_json()) is None:
                    self._online = False
                    return None
                one.attempts += 1
                one.due_at = now + _RESEND.delay(one.attempts, self._random)
        return min(one.due_at for one in self._waiting.values())
