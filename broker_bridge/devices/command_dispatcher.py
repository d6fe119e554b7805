"""Publish commands to online devices and record their results.

Only the leading bridge does.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from datetime import datetime

from broker_bridge.change_streams import wake_on
from broker_bridge.common.clock import utc_now
from broker_bridge.common.retry import retry
from broker_bridge.contract import channels
from broker_bridge.contract.channels import Decoded
from broker_bridge.contract.messages import Command, CommandResult
from broker_bridge.link import Publish
from broker_bridge.registry import Registry, RegistryError

_log = logging.getLogger(__name__)

FOLLOWED = (channels.COMMAND_RESULT,)
_LIMIT = 1000


class CommandDispatcher:
    """Publish a command once per session of its device until a final answer arrives.

    A broker drops messages for a disconnected device, so the next session gets the command again. A device
    answers a command that it knows and does not execute it twice.
    """

    def __init__(
        self,
        registry: Registry,
        publish: Publish,
        poll_seconds: float,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._registry = registry
        self._publish = publish
        self._poll_seconds = poll_seconds
        self._now = now
        self._sent_in: dict[str, tuple[str, datetime]] = {}
        self._results: dict[tuple[str, str, str], CommandResult] = {}
        self._changed = asyncio.Event()
        self.counters: Counter[str] = Counter()

    def wake(self) -> None:
        """Look for commands, results and online devices now."""
        self._changed.set()

    def forget(self) -> None:
        """Drop all state: another worker may lead from here on."""
        self._sent_in.clear()
        self._results.clear()

    def note_result(self, decoded: Decoded[CommandResult], _payload: bytes) -> None:
        """Queue a result.

        Past the bound it is dropped and counted, and its command is sent again.
        """
        result = decoded.message
        key = (decoded.ids["device_id"], result.id, result.state)
        if key not in self._results and len(self._results) >= _LIMIT:
            self.counters["dropped_queue_full"] += 1
            self._sent_in.pop(result.id, None)
            return
        self._results[key] = result
        self.wake()

    async def dispatch_commands(self) -> None:
        """Publish commands and record results until cancelled."""
        while True:
            await retry(self._dispatch_once, on=RegistryError, report=self._report_failure)
            try:
                await asyncio.wait_for(self._changed.wait(), self._poll_seconds)
            except asyncio.TimeoutError:
                self.counters["polls"] += 1
            self._changed.clear()

    async def _dispatch_once(self) -> None:
        await self._note_results()
        await self._send()

    def _report_failure(self, error: Exception) -> None:
        self.counters["failed"] += 1
        _log.warning("commands cannot be read or written; they wait error=%s", type(error).__name__)

    async def watch_commands(self) -> None:
        """Wake at every new command until cancelled."""
        await wake_on(self._registry.commands.watch, self.wake, self.counters)

    async def _note_results(self) -> None:
        while self._results:
            key, result = next(iter(self._results.items()))
            device_id, command_id, _ = key
            outcome = await self._registry.commands.record_result(
                command_id, device_id, result.state, result.detail, self._now()
            )
            self._results.pop(key, None)
            self.counters[f"results_{outcome}"] += 1
            if outcome == "unknown":
                _log.warning(
                    "command result for an unknown command device=%s command=%s", device_id, command_id
                )

    async def _send(self) -> None:
        expired = await self._registry.commands.expire(self._now())
        self.counters["expired"] += expired
        open_commands = await self._registry.commands.list_open(self._now())
        self._sent_in = {key: session for key, session in self._sent_in.items() if key in open_commands}
        online = await self._registry.devices.online_sessions(set(open_commands.values()))
        for command_id, device_id in open_commands.items():
            session = online.get(device_id)
            if session is not None and self._sent_in.get(command_id) != session:
                await self._publish_command(command_id, session)
                # Thousands of commands take a while; the first results arrive meanwhile.
                await self._note_results()

    async def _publish_command(self, command_id: str, session: tuple[str, datetime]) -> None:
        command = await self._registry.commands.get(command_id)
        if command is None:
            return
        message = Command(id=command.command_id, args=command.args, expires_at=command.expires_at)
        if not await self._publish(
            channels.COMMAND, message, device_id=command.device_id, command=command.name
        ):
            return
        # Recorded first: if that fails, the command is published once more, and never counts as unsent.
        await self._registry.commands.mark_sent(command_id, self._now())
        self._sent_in[command_id] = session
        self.counters["sent"] += 1
