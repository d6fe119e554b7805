"""Orders from the backend: each is run once, however often it arrives, and always answered."""

import json
import logging
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from pydantic import JsonValue

from broker_bridge.contract import channels
from broker_bridge.contract.channels import Decoded
from broker_bridge.contract.commands import CommandAnswer
from broker_bridge.contract.messages import Command, CommandResult
from device.mqtt.link import Link, SessionListener
from device.store.connection import StoreError
from device.store.db_manager import DatabaseManager

_log = logging.getLogger(__name__)

Handler = Callable[[Mapping[str, JsonValue]], str]
"""Carries a command out and returns a sentence about what it did; CommandFailedError says what went wrong."""

_KEY = "answered_commands"
_REMEMBERED = 64


class CommandFailedError(Exception):
    """A command that could not be carried out; one sentence for the person who gave it."""


class CommandRunner(SessionListener):
    """Runs `handlers` (by the command's name) one after another in a thread of its own.

    An answer is remembered on disk before it is sent: an id that comes again, also after a restart, is
    answered again and not run again. One that is still running says `accepted`. Part of the link: see
    `SessionListener`.
    """

    def __init__(
        self,
        link: Link,
        db: DatabaseManager,
        handlers: Mapping[str, Handler],
        *,
        utc_now: Callable[[], datetime],
    ) -> None:
        self._link = link
        self._db = db
        self._handlers = handlers
        self._utc_now = utc_now
        self._lock = threading.Lock()
        self._running: set[str] = set()
        remembered = db.get_config(_KEY)
        self._answered: OrderedDict[str, tuple[CommandAnswer, str]] = OrderedDict(
            (command_id, (state, detail)) for command_id, state, detail in json.loads(remembered or "[]")
        )
        self._closed = threading.Event()
        self._orders: queue.SimpleQueue[tuple[Handler, Command] | None] = queue.SimpleQueue()
        # A daemon: a command that a driver never ends must not keep the program from ending.
        threading.Thread(target=self._work, name="command", daemon=True).start()

    def close(self) -> None:
        """Let the command that runs end, and start no other: the backend sends those again."""
        self._closed.set()
        self._orders.put(None)

    def receive_message(self, decoded: Decoded[Any]) -> None:
        if decoded.channel is channels.COMMAND:
            self._take(decoded.ids["command"], decoded.message)

    def _take(self, name: str, command: Command) -> None:
        with self._lock:
            answered = self._answered.get(command.id)
            running = command.id in self._running
        if answered is not None:
            self._publish(command.id, *answered)
        elif self._closed.is_set():
            return
        elif running:
            self._publish(command.id, "accepted", "")
        elif self._utc_now() >= command.expires_at:
            self._answer(command.id, "expired", "it arrived after its expires_at")
        elif name not in self._handlers:
            self._answer(command.id, "unknown", f"this device knows {', '.join(sorted(self._handlers))}")
        else:
            with self._lock:
                self._running.add(command.id)
            self._publish(command.id, "accepted", "")
            self._orders.put((self._handlers[name], command))

    def _work(self) -> None:
        while (order := self._orders.get()) is not None and not self._closed.is_set():
            self._run(*order)

    def _run(self, handler: Handler, command: Command) -> None:
        if self._utc_now() >= command.expires_at:
            self._answer(command.id, "expired", "others took too long before it")
            return
        state: CommandAnswer
        try:
            state, detail = "done", handler(command.args)
        except CommandFailedError as error:
            state, detail = "failed", str(error)
        except Exception as error:  # noqa: BLE001  # the outermost loop of this thread
            _log.exception("command %s failed", command.id)
            state, detail = "failed", f"{type(error).__name__}; see the device's log"
        self._answer(command.id, state, detail)

    def _answer(self, command_id: str, state: CommandAnswer, detail: str) -> None:
        with self._lock:
            self._answered[command_id] = (state, detail)
            while len(self._answered) > _REMEMBERED:
                self._answered.popitem(last=False)
            remembered = [[one, *answer] for one, answer in self._answered.items()]
            self._running.discard(command_id)
            try:
                self._db.set_config(_KEY, json.dumps(remembered))
            except StoreError as error:
                # Answered all the same: only after a restart could it be run again.
                _log.error("the answer to command %s cannot be remembered: %s", command_id, error)
        self._link.submit(lambda: self._publish(command_id, state, detail))

    def _publish(self, command_id: str, state: CommandAnswer, detail: str) -> None:
        result = CommandResult(id=command_id, state=state, detail=detail[:1000] or None)
        self._link.publish(channels.COMMAND_RESULT, result.to_json())
