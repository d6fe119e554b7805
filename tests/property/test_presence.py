"""Check presence and commands after any order of sessions and wills."""

import secrets
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, Literal

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker_bridge.contract import channels
from broker_bridge.contract.channels import Channel, Decoded
from broker_bridge.contract.messages import DeviceStatus, Heartbeat
from broker_bridge.contract.wire import WireModel
from broker_bridge.devices.command_dispatcher import CommandDispatcher
from broker_bridge.devices.presence import Presence
from broker_bridge.registry.devices.commands import CommandRecord
from broker_bridge.settings import BridgeSettings

from .conftest import Stage

NOW = datetime(2026, 1, 15, 10, 0, 0, tzinfo=timezone.utc)
State = Literal["online", "stopped", "lost"]

# Numbers of new and old disks, of a clock in 1970, and zero; each session has one of its own.
_SESSIONS = ["0", "1", "5", "14", "ff", "65a4f0b0", "65a4f0b1", "65a4f0b000000f", "f" * 16]
_YEARS = [1970, 1999, 2026, 2038]

_step = st.one_of(
    st.tuples(st.just("start"), st.sampled_from(_YEARS), st.booleans()),
    st.tuples(st.just("stop")),
    st.tuples(st.just("die"), st.booleans()),
    st.tuples(st.just("deliver_late_will"), st.integers(0, 3)),
    st.tuples(st.just("bridge_goes")),
    st.tuples(st.just("bridge_comes")),
    st.tuples(st.just("new_leader")),
    st.tuples(st.just("heartbeat")),
)


@dataclass
class World:
    """A broker with one device id, used by two devices in turns, and a bridge."""

    stage: Stage
    device_id: str
    free: list[str]
    retained: DeviceStatus | None = None
    live: str | None = None
    late: list[DeviceStatus] = field(default_factory=list)
    bridge_is_there: bool = True
    sent: list[str] = field(default_factory=list)
    clock: datetime = NOW

    def __post_init__(self) -> None:
        registry = self.stage.registry
        self._restart_bridge()
        self.run(registry.devices.register(self.device_id, "lobby"))

    def run(self, work: Any) -> Any:
        return self.stage.loop.run_until_complete(work)

    def _restart_bridge(self) -> None:
        registry = self.stage.registry
        self.presence = Presence(registry, BridgeSettings(), now=lambda: NOW)
        self.dispatcher = CommandDispatcher(registry, self._publish, 1.0, lambda: NOW)

    async def _publish(self, _: Channel[Any], message: WireModel, **_ids: str) -> bool:
        self.sent.append(message.id)  # type: ignore[attr-defined]
        return True

    def _status(self, state: State, session: str) -> DeviceStatus:
        self.clock += timedelta(seconds=1)
        return DeviceStatus(state=state, session=session, at=self.clock)

    def _arrive(self, status: DeviceStatus) -> None:
        self.retained = status
        self._hand_over(status, stored=False)

    def _hand_over(self, status: DeviceStatus, *, stored: bool) -> None:
        if self.bridge_is_there:
            ids = {"device_id": self.device_id}
            self.presence.accept_report(Decoded(channels.STATUS, ids, status, stored), b"")

    def play(self, step: tuple[Any, ...]) -> None:
        getattr(self, step[0])(*step[1:])

    def start(self, year: int, will_is_late: bool) -> None:
        """Connect with a new session, which ends the one before."""
        if not self.free:
            return
        self.die(will_is_late)
        self.clock = self.clock.replace(year=year)
        self.live = self.free.pop()
        self._arrive(self._status("online", self.live))

    def stop(self) -> None:
        if self.live is not None:
            self._arrive(self._status("stopped", self.live))
            self.live = None

    def die(self, will_is_late: bool) -> None:
        if self.live is None:
            return
        will = self._status("lost", self.live)
        self.live = None
        if will_is_late:
            self.late.append(will)
        else:
            self._arrive(will)

    def deliver_late_will(self, position: int) -> None:
        if self.late:
            self._arrive(self.late.pop(position % len(self.late)))

    def bridge_goes(self) -> None:
        self._write()
        self.bridge_is_there = False

    def bridge_comes(self) -> None:
        if not self.bridge_is_there:
            self.bridge_is_there = True
            self._restart_bridge()
            self.new_leader()

    def new_leader(self) -> None:
        """Subscribe anew: the broker sends what it has retained."""
        if self.retained is not None:
            self._hand_over(self.retained, stored=True)

    def heartbeat(self) -> None:
        if self.live is not None and self.bridge_is_there:
            message = Heartbeat(at=self.clock, session=self.live, uptime_s=1.0)
            ids = {"device_id": self.device_id}
            self.presence.accept_report(Decoded(channels.HEARTBEAT, ids, message), b"")

    def _write(self) -> None:
        self.run(self.presence._write_waiting())

    def settle(self) -> None:
        self.bridge_comes()
        while self.late:
            self.deliver_late_will(0)
            self._write()
        self.heartbeat()
        self._write()

    def send_a_command(self) -> str:
        command_id = f"cmd-{secrets.token_hex(6)}"
        expires_at = NOW + timedelta(seconds=60)
        record = CommandRecord(command_id, self.device_id, "run_canary", {}, NOW, expires_at, "tester")
        self.run(self.stage.registry.commands.enqueue(record))
        for _ in range(2):
            self.run(self.dispatcher._dispatch_once())
        return command_id


@settings(deadline=None, print_blob=True, suppress_health_check=list(HealthCheck))
@given(steps=st.lists(_step, max_size=14), order=st.permutations(_SESSIONS))
def test_presence_and_commands_end_right(stage: Stage, steps: list[Any], order: list[str]) -> None:
    """The last session that began decides, whatever its number and the device's clock.

    A device that is connected is online in its session and gets a command once; another gets none.
    """
    world = World(stage, f"cam-{secrets.token_hex(6)}", list(order))
    for step in steps:
        world.play(step)
    world.settle()
    command_id = world.send_a_command()
    found = world.run(stage.registry.devices.get(world.device_id))
    shown = found.status and (found.status.state, found.status.session)
    if world.live is None:
        assert shown is None or shown[0] != "online"
    elif world.live != "0":
        assert shown == ("online", world.live)
    assert world.sent.count(command_id) == (shown is not None and shown[0] == "online")
