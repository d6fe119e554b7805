"""Handle undecodable messages.

Those that name an event are rejected, the others stored as dead letters.

Apart from ingest, so that a device that sends invalid messages does not delay the events of others.
"""

import asyncio
import logging
from collections import Counter

from broker_bridge.common.retry import retry
from broker_bridge.contract import channels
from broker_bridge.contract.channels import claimed_event_id
from broker_bridge.contract.errors import EVENT_INVALID, PAYLOAD_INVALID, ContractError
from broker_bridge.contract.messages import Receipts, Rejection
from broker_bridge.link import Publish
from broker_bridge.registry import Registry, RegistryError

_log = logging.getLogger(__name__)

_LIMIT = 1000
_LIMIT_BYTES = 32 * 1024 * 1024


class RejectionHandler:
    """Answer or store the messages that the link could not decode."""

    def __init__(self, registry: Registry, publish: Publish) -> None:
        self._registry = registry
        self._publish = publish
        self._waiting: asyncio.Queue[tuple[str, bytes, ContractError]] = asyncio.Queue(_LIMIT)
        self._waiting_bytes = 0
        self.counters: Counter[str] = Counter()

    def reject(self, topic: str, payload: bytes, error: ContractError) -> None:
        """Queue a rejected message; past 1,000 messages or 32 MiB it is only counted."""
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
            rejection = _rejection(topic, payload, error)
            if rejection is None:
                await self._store_dead_letter(topic, payload, error)
            else:
                device_id, answer = rejection
                self.counters["rejected"] += 1
                await self._publish(channels.RECEIPT, Receipts(rejected=[answer]), device_id=device_id)

    async def _store_dead_letter(self, topic: str, payload: bytes, error: ContractError) -> None:
        await retry(
            lambda: self._registry.dead_letters.store(topic, payload, error.code, error.detail),
            on=RegistryError,
            report=_report_failure,
        )
        self.counters["dead_letters"] += 1


def _report_failure(error: Exception) -> None:
    _log.warning("dead letter cannot be stored; it is tried again error=%s", type(error).__name__)


def _rejection(topic: str, payload: bytes, error: ContractError) -> tuple[str, Rejection] | None:
    """Return the device and the rejection of an event that names its id.

    None for everything else.
    """
    ids = channels.EVENT.match(topic)
    claimed = claimed_event_id(payload) if ids else None
    if ids is None or claimed is None:
        return None
    code = EVENT_INVALID if error.code == PAYLOAD_INVALID else error.code
    return ids["device_id"], Rejection(event_id=claimed, code=code, detail=error.detail)
