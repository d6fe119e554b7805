"""Handle undecodable messages.

Those that name an event are rejected, the others stored as dead letters.

Apart from ingest, so that a device that sends invalid messages does not delay the events of others.
"""

import asyncio
import logging
from collections import Counter
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from broker_bridge.common.retry import retry
from broker_bridge.contract import channels
from broker_bridge.contract.channels import Channel
from broker_bridge.contract.claimed_ids import claimed_id
from broker_bridge.contract.errors import EVENT_INVALID, PAYLOAD_INVALID, ContractError
from broker_bridge.contract.messages import Receipts, Registered, Rejection, WireError
from broker_bridge.contract.wire import WireModel
from broker_bridge.link import Publish
from broker_bridge.registry import Registry, RegistryError

_log = logging.getLogger(__name__)

_LIMIT = 1000
_LIMIT_BYTES = 32 * 1024 * 1024
_MAX_COUNTED_DEVICES = 1000
_NO_DEVICE = "-"


class RejectionHandler:
    """Answer or store the messages that the link could not decode."""

    def __init__(self, registry: Registry, publish: Publish) -> None:
        self._registry = registry
        self._publish = publish
        self._waiting: asyncio.Queue[tuple[str, bytes, ContractError]] = asyncio.Queue(_LIMIT)
        self._waiting_bytes = 0
        self.counters: Counter[str] = Counter()
        self.bytes_by_device: Counter[str] = Counter()
        """Bytes that could not be decoded, by the device of the topic; `-` for other topics."""

    def reject(self, topic: str, payload: bytes, error: ContractError) -> None:
        """Queue a rejected message; past 1,000 messages or 32 MiB it is only counted."""
        self._count_bytes(topic, payload)
        _log.warning("message rejected topic=%r code=%s detail=%r", topic[:200], error.code, error.detail)
        if self._waiting.full() or self._waiting_bytes + len(payload) > _LIMIT_BYTES:
            self.counters["dropped_queue_full"] += 1
            return
        self._waiting.put_nowait((topic, payload, error))
        self._waiting_bytes += len(payload)

    async def handle_rejections(self) -> None:
        """Answer and store until cancelled."""
        while True:
            topic, payload, error = await self._waiting.get()
            self._waiting_bytes -= len(payload)
            answer = _answer_to(topic, payload, error)
            if answer is None:
                await self._store_dead_letter(topic, payload, error)
            else:
                self.counters["rejected"] += 1
                await self._publish(answer.channel, answer.message, device_id=answer.device_id)

    async def _store_dead_letter(self, topic: str, payload: bytes, error: ContractError) -> None:
        dropped = await retry(
            lambda: self._registry.dead_letters.store(topic, payload, error.code, error.detail),
            on=RegistryError,
            report=_report_failure,
        )
        self.counters["dead_letters"] += 1
        self.counters["dead_letters_dropped"] += dropped

    def _count_bytes(self, topic: str, payload: bytes) -> None:
        sender = channels.sender_of(topic) or _NO_DEVICE
        if sender not in self.bytes_by_device and len(self.bytes_by_device) >= _MAX_COUNTED_DEVICES:
            sender = _NO_DEVICE
        self.bytes_by_device[sender] += len(payload)
        self.counters["rejected_bytes"] += len(payload)


def _report_failure(error: Exception) -> None:
    _log.warning("dead letter cannot be stored; it is tried again error=%s", type(error).__name__)


@dataclass(frozen=True)
class _Answer:
    device_id: str
    channel: Channel[Any]
    message: WireModel


def _answer_to(topic: str, payload: bytes, error: ContractError) -> _Answer | None:
    """Return the answer to an event or a registration that claims an id.

    Without an answer it would come again for ever. None for everything else.
    """
    event = channels.EVENT.match(topic)
    if event and (event_id := claimed_id(payload, "event_id")):
        code = EVENT_INVALID if error.code == PAYLOAD_INVALID else error.code
        rejection = Rejection(event_id=event_id, code=code, detail=error.detail)
        return _Answer(event["device_id"], channels.RECEIPT, Receipts(rejected=[rejection]))
    request = channels.REGISTER.match(topic)
    if request and (request_id := claimed_id(payload, "request_id")):
        try:
            registered = Registered(
                request_id=request_id,
                result="rejected",
                error=WireError(code=error.code, detail=error.detail),
            )
        except ValidationError:
            return None
        return _Answer(request["device_id"], channels.REGISTERED, registered)
    return None
