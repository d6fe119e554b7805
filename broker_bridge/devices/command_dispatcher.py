"""Sends commands to devices that are online, and notes what they answer. One process: the lease's holder."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from datetime import datetime

from broker_bridge.change_streams import wake_on
from broker_bridge.common.clock import utc_now
from broker_bridge.contract import channels
from broker_bridge.contract.channels import Decoded
from broker_bridge.contract.messages import Command, CommandResult, DeviceStatus
from broker_bridge.link import Publish
from broker_bridge.registry import Registry, RegistryError

_log = logging.getLogger(__name__)

FOLLOWED = (channels.COMMAND_RESULT,)
_LIMIT = 1000
_RETRY_SECONDS = 1.0


class CommandDispatcher:
    """A command is published once in every session of its device until a final answer has come.

    A broker drops what a device without a connection would have got, hence the session: when the device comes
    online again it is told again, and answers what it has done before without doing it twice.
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
        # By device, the session it last spoke of and whether it is online in it.
        self._sessions: dict[str, tuple[int, bool]] = {}
        self._told: dict[str, int] = {}
        self._results: dict[tuple[str, str, str], CommandResult] = {}
        self._changed = asyncio.Event()
        self.counters: Counter[str] = Counter()

    def wake(self) -> None:
        """Look for commands and answers now."""
        self._changed.set()

    def forget(self) -> None:
        """Another worker may lead from here on: what was told, and who is online, is found out anew."""
        self._sessions.clear()
        self._told.clear()
        self._results.clear()

    def note_status(self, decoded: Decoded[DeviceStatus], _payload: bytes) -> None:
        """Note who is online; the will of an older session says nothing about a newer one."""
        device_id, status = decoded.ids["device_id"], decoded.message
        session = int(status.session, 16)
        known, _ = self._sessions.get(device_id, (-1, False))
        if session >= known:
            self._sessions[device_id] = (session, status.state == "online")
            self.wake()

    def note_result(self, decoded: Decoded[CommandResult], _payload: bytes) -> None:
        """Queue an answer; past the bound it is dropped and counted, and the device is asked again."""
        result = decoded.message
        key = (decoded.ids["device_id"], result.id, result.state)
        if key not in self._results and len(self._results) >= _LIMIT:
            self.counters["dropped_queue_full"] += 1
            self._told.pop(result.id, None)
            return
        self._results[key] = result
        self.wake()

    async def dispatch_commands(self) -> None:
        """Send commands and note answers until cancelled."""
        while True:
            try:
                await self._note_results()
                await self._send()
            except RegistryError as error:
                self.counters["failed"] += 1
                _log.warning("commands have to wait: %s", type(error).__name__)
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            try:
                await asyncio.wait_for(self._changed.wait(), self._poll_seconds)
            except asyncio.TimeoutError:
                self.counters["polls"] += 1
            self._changed.clear()

    async def watch_commands(self) -> None:
        """Wake at every new command until cancelled."""
        await wake_on(self._registry.commands.watch, self.wake, self.counters)

    async def _note_results(self) -> None:
        while self._results:
            key, result = next(iter(self._results.items()))
            device_id, command_id, _ = key
            became = await self._registry.commands.record_result(
                command_id, device_id, result.state, result.detail, self._now()
            )
            self._results.pop(key, None)
            self.counters[f"results_{became}"] += 1
            if became == "unknown":
                _log.warning("%s answers a command that it was never given", device_id)

    async def _send(self) -> None:
        self.counters["expired"] += await self._registry.commands.expire(self._now())
        open_commands = await self._registry.commands.list_open(self._now())
        self._told = {key: session for key, session in self._told.items() if key in open_commands}
        for command_id, device_id in open_commands.items():
            session, online = self._sessions.get(device_id, (-1, False))
            if online and self._told.get(command_id) != session:
                await self._tell(command_id, session)
                # Thousands take a while, in which the first of them are answered.
                await self._note_results()

    async def _tell(self, command_id: str, session: int) -> None:
        command = await self._registry.commands.get(command_id)
        if command is None:
            return
        order = Command(id=command.command_id, args=command.args, expires_at=command.expires_at)
        if not await self._publish(
            channels.COMMAND, order, device_id=command.device_id, command=command.name
        ):
            return
        # Noted first: should that fail, it is sent once more, rather than called never sent.
        await self._registry.commands.mark_sent(command_id, self._now())
        self._told[command_id] = session
        self.counters["sent"] += 1
