"""The one place where the bridge is put together: registry, link, and what runs between them."""

import asyncio
import logging
import secrets
import socket
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

from broker_bridge.common.clock import utc_now

from .contract import channels
from .contract.channels import Channel, Decoded
from .contract.embeddings import EmbeddingSpace
from .devices import command_dispatcher as commands
from .devices import presence
from .devices.command_dispatcher import CommandDispatcher
from .devices.presence import Presence
from .enrollment.publisher import DeltaPublisher
from .enrollment.registration import RegistrationHandler
from .enrollment.sync_responder import SyncResponder
from .events.ingest import EventIngest
from .events.rejections import RejectionHandler
from .housekeeping import Housekeeping
from .leader_election import LeaderElection
from .link import BrokerLink
from .registry import Registry, RegistryError, Retention
from .registry.mongo.leases import Lease
from .registry.workers import Workers
from .settings import BridgeProgram
from .tasks import cancel_and_wait
from .tracking.observations import ObservationIngest

_log = logging.getLogger(__name__)

_SHARED = (channels.EVENT, channels.SYNC_REQUEST, channels.REGISTER)
# Answers first: a status that says "online" is what makes the leader send commands.
_FOLLOWED = (*commands.FOLLOWED, *presence.FOLLOWED)
_HEALTH_SECONDS = 5.0
_FORGOTTEN = timedelta(days=1)
_GOODBYE_SECONDS = 1.0
_DRAIN_SECONDS = 3.0
_RETRY_SECONDS = 1.0


class Bridge:
    """One bridge worker. Any number may run; one of them leads (heads, deltas, presence, commands)."""

    def __init__(self, registry: Registry, settings: BridgeProgram, share_group: str) -> None:
        self._registry = registry
        own = settings.bridge
        self.bridge_id = f"{socket.gethostname()[:40]}-{secrets.token_hex(4)}"
        self.link = BrokerLink(
            settings.mqtt,
            client_id=f"bridge-{self.bridge_id}",
            subscriptions=_SHARED,
            handle=self._handle,
            refuse=self._refuse,
            share_group=share_group,
        )
        self.ingest = EventIngest(registry, self.link.publish, own)
        self.answers = SyncResponder(registry, self.link.publish, own)
        self.registrar = RegistrationHandler(registry, self.link.publish)
        self.refusals = RejectionHandler(registry, self.link.publish)
        self.presence = Presence(registry, own)
        self.publisher = DeltaPublisher(registry, self.link.publish, own.poll_seconds)
        self.commands = CommandDispatcher(registry, self.link.publish, own.poll_seconds)
        kept = timedelta(days=settings.registry.tombstone_retention_days)
        unseen = timedelta(days=settings.tracking.retention_days)
        self.housekeeping = Housekeeping(registry, kept, unseen=unseen)
        self.link.on_connect(self._connected)
        self._workers = Workers(registry.mongo)
        lease = Lease(registry.mongo, "publisher", self.bridge_id, own.lease_seconds)
        self.leadership = LeaderElection(
            lease,
            own.lease_seconds,
            self._lead,
            "leads: it publishes heads, deltas and commands and follows presence",
        )
        seconds = settings.tracking.lease_seconds
        self.tracking = LeaderElection(
            Lease(registry.mongo, "tracker", self.bridge_id, seconds),
            seconds,
            self._track,
            "tracks people across cameras",
            able=lambda: self.link.connected,
        )
        self.observations = ObservationIngest(
            registry,
            self.link.publish,
            settings.tracking,
            settings.registry,
            may_track=self.tracking.holds,
        )
        self._handlers: dict[Channel[Any], Callable[[Decoded[Any], bytes], None]] = {
            channels.EVENT: self.ingest.accept_event,
            channels.SYNC_REQUEST: self.answers.accept_request,
            channels.REGISTER: self.registrar.accept_request,
            **dict.fromkeys(presence.FOLLOWED, self.presence.accept_report),
            channels.STATUS: self._note_status,
            channels.COMMAND_RESULT: self.commands.note_result,
            channels.OBSERVATION: self.observations.accept,
        }

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, then record what is waiting and give the lease back."""
        tasks = [
            asyncio.create_task(work, name=name)
            for name, work in {
                "link": self.link.run(),
                "ingest": self.ingest.ingest_events(),
                "answers": self.answers.answer_requests(),
                "registrar": self.registrar.answer_requests(),
                "refusals": self.refusals.handle_rejections(),
                "presence": self.presence.write_reports(),
                "leadership": self.leadership.run(),
                "faces": self._know_faces(),
                "tracking": self.tracking.run(),
                "health": self._report_health(),
            }.items()
        ]
        stopping = asyncio.create_task(stop.wait())
        done, _ = await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
        try:
            for task in done - {stopping}:
                task.result()
        finally:
            await self._stop(tasks, stopping)

    async def _stop(self, tasks: list["asyncio.Task[Any]"], stopping: "asyncio.Task[Any]") -> None:
        with suppress(asyncio.TimeoutError, RegistryError):
            await asyncio.wait_for(self.ingest.drain(), _DRAIN_SECONDS)
        await cancel_and_wait([*tasks, stopping])
        with suppress(asyncio.TimeoutError, RegistryError):
            await asyncio.wait_for(self._workers.leave(self.bridge_id), _GOODBYE_SECONDS)

    def _handle(self, decoded: Decoded[Any], payload: bytes) -> None:
        self._handlers[decoded.channel](decoded, payload)

    def _note_status(self, decoded: Decoded[Any], payload: bytes) -> None:
        self.presence.accept_report(decoded, payload)
        self.commands.note_status(decoded, payload)

    def _refuse(self, topic: str, payload: bytes, error: Any) -> None:
        observed = channels.OBSERVATION.match(topic)
        if observed:
            # It is of the moment, and has somebody's face in it: nobody keeps it.
            self.observations.reject(observed["device_id"], error)
            return
        self.refusals.reject(topic, payload, error)

    async def _connected(self) -> None:
        self.publisher.forget_heads()

    async def _lead(self) -> None:
        """What only one worker does, until cancelled."""
        self.commands.forget()
        self.link.follow(_FOLLOWED)
        self.publisher.forget_heads()
        try:
            await asyncio.gather(
                self.publisher.publish_changes(),
                self.publisher.watch_changes(),
                self.commands.dispatch_commands(),
                self.commands.watch_commands(),
                self.housekeeping.run(),
            )
        finally:
            self.link.unfollow(_FOLLOWED)

    async def _know_faces(self) -> None:
        """Every worker: one that takes over the tracking must not begin to load everybody then."""
        await asyncio.gather(self._registry.face_search.follow_changes(), self._load_faces())

    async def _load_faces(self) -> None:
        while True:
            try:
                for space_id, dimension in (await self._registry.spaces.dimensions()).items():
                    await self._registry.face_search.prepare_space(EmbeddingSpace(space_id, dimension))
            except RegistryError as error:
                _log.warning("the faces of detected persons cannot be read yet: %s", type(error).__name__)
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                _log.info("everybody who was ever seen is known")
                return

    async def _track(self) -> None:
        """What only one worker does, maybe another than the one that leads, until cancelled."""
        self.link.follow([channels.OBSERVATION])
        try:
            await self.observations.ingest_observations()
        finally:
            self.link.unfollow([channels.OBSERVATION])

    def health(self) -> dict[str, Any]:
        """What this worker counts, for its health document and its log."""
        parts = {
            "link": self.link.counters,
            "ingest": self.ingest.counters,
            "answers": self.answers.counters,
            "registrar": self.registrar.counters,
            "admissions": self._registry.edge_registration.counters,
            "refusals": self.refusals.counters,
            "presence": self.presence.counters,
            "publisher": self.publisher.counters,
            "commands": self.commands.counters,
            "housekeeping": self.housekeeping.counters,
            "observations": self.observations.counters,
        }
        return {
            "connected": self.link.connected,
            "leading": self.leadership.leading,
            "tracking": self.tracking.leading,
            "people_present": self.observations.active_count,
            "registry_failing_since": self.ingest.failing_since,
            **{name: dict(counters) for name, counters in parts.items()},
        }

    async def _report_health(self) -> None:
        while True:
            now = utc_now()
            try:
                await self._workers.report(self.bridge_id, self.health(), now)
                await self._workers.forget(now - _FORGOTTEN)
            except RegistryError as error:
                _log.warning("the bridge's health could not be written: %s", type(error).__name__)
            await asyncio.sleep(_HEALTH_SECONDS)


async def open_registry(settings: BridgeProgram) -> Registry:
    """The registry with the configured spaces; raises RegistryUnavailableError or ContractError."""
    own = settings.bridge
    retention = Retention(own.image_retention_days, own.dead_letter_retention_days)
    registry = await Registry.open(settings.mongo, retention, settings.registry, settings.search)
    for space_id, dimension in settings.bridge.default_spaces.items():
        await registry.spaces.ensure(EmbeddingSpace(space_id, dimension))
    return registry
