"""Registrations of visitors and employees at the registry (DESIGN 3.3)."""

import logging
import random
import secrets
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from broker_bridge.common.retry import Backoff
from broker_bridge.contract import channels
from broker_bridge.contract.channels import Decoded
from broker_bridge.contract.errors import DEVICE_UNKNOWN, SPACE_UNKNOWN
from broker_bridge.contract.messages import EnrollmentPolicy, Registered, RegisterIdentity, SyncHead
from device.mqtt.link import Link, SessionListener
from device.store.db_manager import DatabaseManager
from device.store.registrations import RegistrationStore

_log = logging.getLogger(__name__)

_POLICY_KEY = "enrollment_policy"
_RESEND = Backoff(base=5.0, cap=300.0)
_EXPIRY_SECONDS = 600.0
_QUARANTINE_SECONDS = 5.0
_TEMPORARY_ERRORS = frozenset({DEVICE_UNKNOWN, SPACE_UNKNOWN})
_EMPLOYEE_KEY = {"user_id", "space", "vector", "kind"}

OnAnswer = Callable[[Registered | None], None]
"""Receives the registry's decision, or None if none will come; runs in the link's thread."""


@dataclass
class _PendingRegistration:
    registration: RegisterIdentity
    attempts: int = 0
    due_at: float = 0.0
    on_answer: OnAnswer | None = None

    def answer(self, decision: Registered | None) -> None:
        if self.on_answer is not None:
            self.on_answer(decision)


class RegistrationSender(SessionListener):
    """Sender of registrations until the registry decides them.

    It repeats them after a restart too. `offer_visitor` and `register_employee` are for any thread, the
    rest for the link's. `counts` is about visitors: `offered`, `created`, `exists`, `rejected`, and
    `dropped`: too many were pending, a day passed without an answer, or the space `is_quarantined`, so
    that the device's vectors in it do not compare.
    """

    def __init__(
        self,
        link: Link,
        db: DatabaseManager,
        *,
        source: random.Random,
        utc_now: Callable[[], datetime],
        is_quarantined: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._link = link
        self._db = db
        self._store = RegistrationStore(db.connection, utc_now=utc_now)
        self._random = source
        self._is_quarantined = is_quarantined
        self._expire_at = float("-inf")
        self._online = False
        self._answered = False
        stored_policy = db.get_config(_POLICY_KEY)
        self._policy: EnrollmentPolicy = "visitors" if stored_policy == "visitors" else "closed"
        self._pending = {
            registration.request_id: _PendingRegistration(registration)
            for registration in self._store.pending()
        }
        self.counts: Counter[str] = Counter()

    @property
    def registers_visitors(self) -> bool:
        """Whether the site's policy registers unknown persons as visitors."""
        return self._policy == "visitors"

    def offer_visitor(self, space: str, vector: bytes, quality: float | None = None) -> None:
        """Store and send a confirmed unknown person, if the site registers visitors.

        `vector` is float32[d] of unit length as bytes. Raises StoreError.
        """
        if not self.registers_visitors:
            return
        registration = RegisterIdentity(
            request_id=_new_request_id(), space=space, vector=vector, quality=quality, kind="visitor"
        )
        dropped = self._store.put(registration)
        self._link.submit(lambda: self._add_pending(registration, dropped))

    def register_employee(self, user_id: str, space: str, vector: bytes, on_answer: OnAnswer) -> None:
        """Store and send an employee of the WFM system, under any enrollment policy.

        `vector` is float32[d] of unit length as bytes. `on_answer` is called once, unless the program ends
        before. Raises StoreError.
        """
        registration = RegisterIdentity(
            request_id=_new_request_id(), user_id=user_id, space=space, vector=vector, kind="employee"
        )
        dropped = self._store.put(registration)
        self._link.submit(lambda: self._add_pending(registration, dropped, on_answer))

    def _add_pending(
        self, registration: RegisterIdentity, dropped: int, on_answer: OnAnswer | None = None
    ) -> None:
        earlier = self._find_same_employee(registration)
        if earlier is not None:
            # It is pending since before a restart, without a callback.
            earlier.on_answer = on_answer
            self._store.settle(registration.request_id)
        else:
            self._pending[registration.request_id] = _PendingRegistration(registration, on_answer=on_answer)
            self._count("offered", registration)
        if dropped:
            self._drop_expired()

    def _find_same_employee(self, registration: RegisterIdentity) -> _PendingRegistration | None:
        if registration.kind == "visitor":
            return None
        wanted = registration.model_dump(include=_EMPLOYEE_KEY)
        for pending in self._pending.values():
            # The vector first: the dump of each pending registration is slow.
            if pending.registration.vector != registration.vector:
                continue
            if pending.registration.model_dump(include=_EMPLOYEE_KEY) == wanted:
                return pending
        return None

    def _drop_expired(self) -> None:
        """Drop pending registrations that are no longer in the store."""
        stored = {registration.request_id for registration in self._store.pending()}
        self._drop([request_id for request_id in self._pending if request_id not in stored])

    def _drop(self, request_ids: Iterable[str]) -> None:
        for request_id in request_ids:
            pending = self._pending.pop(request_id)
            self._count("dropped", pending.registration)
            pending.answer(None)

    def _count(self, outcome: str, registration: RegisterIdentity) -> None:
        if registration.kind == "visitor":
            self.counts[outcome] += 1

    def connected(self, now: float) -> None:
        self._online = True
        self._repeat_soon(now, later_than=now)

    def _repeat_soon(self, now: float, *, later_than: float) -> None:
        """Send within a second what is due later than `later_than`; its delays begin anew."""
        for pending in self._pending.values():
            if pending.due_at > later_than:
                pending.attempts = 0
                pending.due_at = min(pending.due_at, now + self._random.uniform(0.0, 1.0))

    def disconnected(self) -> None:
        self._online = False

    def receive_message(self, decoded: Decoded[Any]) -> None:
        # Answers and heads come from a bridge that works again, after whatever kept it from answering.
        self._answered |= decoded.channel in (channels.SYNC_HEAD, channels.REGISTERED)
        if decoded.channel is channels.SYNC_HEAD:
            self._apply_policy(decoded.message)
        elif decoded.channel is channels.REGISTERED:
            self._settle(decoded.message)

    def _apply_policy(self, head: SyncHead) -> None:
        policy = head.enrollment_policy or "closed"
        if policy != self._policy:
            # In effect before it is stored: a full disk must not keep a site from closing.
            self._policy = policy
            _log.info("registration enrollment policy changed policy=%s", policy)
            self._db.set_config(_POLICY_KEY, policy)

    def _settle(self, decision: Registered) -> None:
        if decision.request_id not in self._pending:
            return
        error = decision.error
        if error is not None and error.code in _TEMPORARY_ERRORS:
            return
        self._store.settle(decision.request_id)
        pending = self._pending.pop(decision.request_id)
        pending.answer(decision)
        self._count(decision.result, pending.registration)
        if error is not None:
            _log.warning(
                "registration rejected by the registry kind=%s user_id=%s code=%s detail=%r",
                pending.registration.kind,
                pending.registration.user_id,
                error.code,
                error.detail,
            )

    def tick(self, now: float) -> float | None:
        if not self._pending:
            return None
        self._drop_quarantined_visitors()
        if self._pending and now >= self._expire_at:
            self._expire_at = now + _EXPIRY_SECONDS
            if self._store.expire():
                self._drop_expired()
        if not self._online:
            return None
        if self._answered:
            self._answered = False
            self._repeat_soon(now, later_than=now + 2 * _RESEND.base)
        return self._send_due(now)

    def _drop_quarantined_visitors(self) -> None:
        """Drop visitors of a quarantined model, which would match a wrong identity."""
        request_ids = [
            request_id
            for request_id, pending in self._pending.items()
            if pending.registration.kind == "visitor" and self._is_quarantined(pending.registration.space)
        ]
        if request_ids:
            self._store.forget(request_ids)
            self._drop(request_ids)

    def _send_due(self, now: float) -> float | None:
        due_times = []
        for pending in self._pending.values():
            if self._is_quarantined(pending.registration.space):
                # Another program may have made an employee's vector; it waits for the end of the quarantine.
                due_times.append(now + _QUARANTINE_SECONDS)
                continue
            if pending.due_at <= now:
                if self._link.publish(channels.REGISTER, pending.registration.to_json()) is None:
                    self._online = False
                    return None
                pending.attempts += 1
                pending.due_at = now + _RESEND.delay(pending.attempts, self._random)
            due_times.append(pending.due_at)
        return min(due_times, default=None)


def _new_request_id() -> str:
    return f"reg-{secrets.token_hex(8)}"
