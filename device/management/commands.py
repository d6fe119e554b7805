"""Commands from the backend: run once, answered at every arrival."""

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
"""Runs a command and returns a sentence about its result, or raises CommandFailedError."""

_KEY = "answered_commands"
_MAX_STORED_ANSWERS = 64


class CommandFailedError(Exception):
    """A command failed; the sentence is for the operator."""


class CommandRunner(SessionListener):
    """The runner of commands, one after another in a thread of its own.

    The `handlers` are by command name. An answer is stored on disk before it is sent: a command id that
    arrives again, also after a restart, is answered again and does not run again. The answer is
    `accepted` while the command runs.
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
        stored = db.get_config(_KEY)
        self._answered: OrderedDict[str, tuple[CommandAnswer, str]] = OrderedDict(
            (command_id, (state, detail)) for command_id, state, detail in json.loads(stored or "[]")
        )
        self._closed = threading.Event()
        self._queue: queue.SimpleQueue[tuple[Handler, Command] | None] = queue.SimpleQueue()
        # A daemon: a command that hangs in a driver must not keep the program from ending.
        threading.Thread(target=self._run_commands, name="command", daemon=True).start()

    def close(self) -> None:
        """Start no further command; the backend sends open commands again."""
        self._closed.set()
        self._queue.put(None)

    def receive_message(self, decoded: Decoded[Any]) -> None:
        if decoded.channel is channels.COMMAND:
            self._accept(decoded.ids["command"], decoded.message)

    def _accept(self, name: str, command: Command) -> None:
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
            self._answer(command.id, "expired", "the command arrived after its expires_at")
        elif name not in self._handlers:
            self._answer(command.id, "unknown", f"expected one of {', '.join(sorted(self._handlers))}")
        else:
            with self._lock:
                self._running.add(command.id)
            self._publish(command.id, "accepted", "")
            self._queue.put((self._handlers[name], command))

    def _run_commands(self) -> None:
        while (queued := self._queue.get()) is not None and not self._closed.is_set():
            self._run_command(*queued)

    def _run_command(self, handler: Handler, command: Command) -> None:
        if self._utc_now() >= command.expires_at:
            self._answer(command.id, "expired", "the command expired while others ran")
            return
        state: CommandAnswer
        try:
            state, detail = "done", handler(command.args)
        except CommandFailedError as error:
            state, detail = "failed", str(error)
        except Exception as error:  # noqa: BLE001  # the outermost loop of this thread
            _log.exception("command failed id=%s", command.id)
            state, detail = "failed", f"{type(error).__name__}; see the device's log"
        self._answer(command.id, state, detail)

    def _answer(self, command_id: str, state: CommandAnswer, detail: str) -> None:
        with self._lock:
            self._answered[command_id] = (state, detail)
            while len(self._answered) > _MAX_STORED_ANSWERS:
                self._answered.popitem(last=False)
            answers = [[answered_id, *answer] for answered_id, answer in self._answered.items()]
            self._running.discard(command_id)
            try:
                self._db.set_config(_KEY, json.dumps(answers))
            except StoreError as error:
                # Answered all the same; without the stored answer it could run again after a restart.
                _log.error("command answer not stored id=%s error=%r", command_id, str(error))
        self._link.submit(lambda: self._publish(command_id, state, detail))

    def _publish(self, command_id: str, state: CommandAnswer, detail: str) -> None:
        result = CommandResult(id=command_id, state=state, detail=detail[:1000] or None)
        self._link.publish(channels.COMMAND_RESULT, result.to_json())
