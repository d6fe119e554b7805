"""Whom a device tells the registry of: visitors, where the site wants it, and employees (DESIGN 3.3)."""

import logging
import random
import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from broker_bridge.common.retry import Backoff
from broker_bridge.contract import channels
from broker_bridge.contract.channels import Decoded
from broker_bridge.contract.errors import DEVICE_UNKNOWN, SPACE_UNKNOWN
from broker_bridge.contract.messages import EnrollmentPolicy, Registered, RegisterIdentity, SyncHead
from device.mqtt.link import Link
from device.store.db_manager import DatabaseManager
from device.store.registrations import RegistrationStore

_log = logging.getLogger(__name__)

_POLICY_KEY = "enrollment_policy"
_RESEND = Backoff(base=5.0, cap=300.0)
_EXPIRY_SECONDS = 600.0
_HELD_BACK_SECONDS = 5.0
# Refusals that end by themselves.
_FOR_NOW = frozenset({DEVICE_UNKNOWN, SPACE_UNKNOWN})

OnAnswer = Callable[[Registered | None], None]
"""The registry's decision, or None if there will be none: ask again. Called in the link's thread."""


@dataclass
class _PendingRegistration:
    registration: RegisterIdentity
    attempts: int
    due_at: float
    answered: OnAnswer | None = None


class RegistrationSender:
    """Asks the registry about each person once, and again until it answers; over restarts too.

    `offer` and `register` are for any thread, all else runs in the link's (see `LinkListener`). `counts` is
    of visitors: `offered`, `created`, `exists`, `rejected` and `dropped` (too many waited, a day went by
    without an answer, or `distrusted` says that the device's vectors of that space are not to be trusted).
    """

    def __init__(
        self,
        link: Link,
        db: DatabaseManager,
        *,
        source: random.Random,
        utc_now: Callable[[], datetime],
        distrusted: Callable[[str], bool] = lambda _: False,
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
        self._waiting = {one.request_id: _PendingRegistration(one, 0, 0.0) for one in self._store.waiting()}
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
            request_id=_new_request_id(), space=space, vector=vector, quality=quality, kind="visitor"
        )
        dropped = self._store.put(registration)
        self._link.submit(lambda: self._take_over(registration, dropped))

    def register(self, user_id: str, space: str, vector: bytes, answered: OnAnswer) -> None:
        """An employee of the WFM system, whatever the site does with visitors: `vector` is float32[d] of unit
        length as bytes. `answered` is called once, unless the program ends before. Raises StoreError."""
        registration = RegisterIdentity(
            request_id=_new_request_id(), user_id=user_id, space=space, vector=vector, kind="employee"
        )
        dropped = self._store.put(registration)
        self._link.submit(lambda: self._take_over(registration, dropped, answered))

    def _take_over(
        self, registration: RegisterIdentity, dropped: int, answered: OnAnswer | None = None
    ) -> None:
        before = self._same_as(registration)
        if before is not None:
            # It waits since before a restart, with nobody to tell.
            before.answered = answered
            self._store.settle(registration.request_id)
        else:
            self._waiting[registration.request_id] = _PendingRegistration(registration, 0, 0.0, answered)
            self._count("offered", registration)
        self._drop(dropped)

    def _same_as(self, registration: RegisterIdentity) -> _PendingRegistration | None:
        if registration.kind == "visitor":
            return None
        asked = {"user_id", "space", "vector", "kind"}
        wanted = registration.model_dump(include=asked)
        found = (one for one in self._waiting.values() if one.registration.vector == registration.vector)
        return next((one for one in found if one.registration.model_dump(include=asked) == wanted), None)

    def _drop(self, dropped: int) -> None:
        """Wait no longer for what is not in the store any more."""
        if dropped:
            kept = {one.request_id for one in self._store.waiting()}
            self._give_up([key for key in self._waiting if key not in kept])

    def _give_up(self, request_ids: list[str]) -> None:
        for request_id in request_ids:
            one = self._waiting.pop(request_id)
            self._count("dropped", one.registration)
            if one.answered is not None:
                one.answered(None)

    def _count(self, what: str, registration: RegisterIdentity) -> None:
        if registration.kind == "visitor":
            self.counts[what] += 1

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
        one = self._waiting.pop(answer.request_id)
        if one.answered is not None:
            one.answered(answer)
        self._count(answer.result, one.registration)
        if answer.error is not None:
            who = one.registration.user_id or "a visitor"
            _log.warning("%s was not registered: %s: %s", who, answer.error.code, answer.error.detail)

    def tick(self, now: float) -> float | None:
        if not self._waiting:
            return None
        self._drop_distrusted()
        if self._waiting and now >= self._expire_at:
            self._expire_at = now + _EXPIRY_SECONDS
            self._drop(self._store.expire())
        if not self._online:
            return None
        return self._send_due(now)

    def _drop_distrusted(self) -> None:
        """Visitors under a model that is not the registry's would be somebody else."""
        doubtful = [
            key
            for key, one in self._waiting.items()
            if one.registration.kind == "visitor" and self._distrusted(one.registration.space)
        ]
        if doubtful:
            self._store.forget(doubtful)
            self._give_up(doubtful)

    def _send_due(self, now: float) -> float | None:
        wishes = []
        for one in self._waiting.values():
            if self._distrusted(one.registration.space):
                # An employee's vector may be another program's; it can wait until the model is mended.
                wishes.append(now + _HELD_BACK_SECONDS)
                continue
            if one.due_at <= now:
                if self._link.publish(channels.REGISTER, one.registration.to_json()) is None:
                    self._online = False
                    return None
                one.attempts += 1
                one.due_at = now + _RESEND.delay(one.attempts, self._random)
            wishes.append(one.due_at)
        return min(wishes, default=None)


def _new_request_id() -> str:
    return f"reg-{secrets.token_hex(8)}"
