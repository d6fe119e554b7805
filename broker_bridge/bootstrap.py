"""Wire the bridge: registry, broker link and the components between them."""

import asyncio
import logging
import secrets
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

from .common.clock import utc_now
from .common.retry import retry
from .common.tasks import cancel_and_wait
from .contract import channels
from .contract.channels import Channel, Decoded
from .contract.default_space import DEFAULT_FACE_SPACE
from .contract.embeddings import EmbeddingSpace
from .contract.errors import ContractError
from .devices import command_dispatcher as commands
from .devices import presence
from .devices.command_dispatcher import CommandDispatcher
from .devices.presence import Presence
from .devices.retained import RetainedCleaner
from .enrollment.publisher import DeltaPublisher
from .enrollment.registration import RegistrationHandler
from .enrollment.sync_responder import SyncResponder
from .events.ingest import EventIngest
from .events.rejections import RejectionHandler
from .housekeeping import Housekeeping
from .leader_election import LeaderElection
from .link import BrokerLink
from .registry import Registry, RegistryError, Retention
from .registry.events.admission import EventAdmission
from .registry.mongo.leases import Lease
from .registry.mongo.probe import ConnectionProbe
from .registry.spaces import warn_of_missing_limits
from .registry.workers import Workers
from .settings import BridgeProgram
from .tracking.observations import ObservationIngest

_log = logging.getLogger(__name__)

_SHARED = (channels.EVENT, channels.SYNC_REQUEST, channels.REGISTER)
# Command results first: an online device makes the leader send commands.
_LEADER_CHANNELS = (*commands.FOLLOWED, *presence.FOLLOWED)
_HEALTH_SECONDS = 5.0
_SILENT_WORKER_AGE = timedelta(days=1)
_LEAVE_SECONDS = 1.0
_DRAIN_SECONDS = 3.0
# The devices in the health document with the most bytes that cannot be decoded.
_MOST_REJECTED = 20


class Bridge:
    """One bridge worker of any number.

    One worker leads: it publishes heads, deltas and commands, and follows presence. One worker, the same or
    another, tracks detected persons across cameras.
    """

    def __init__(self, registry: Registry, settings: BridgeProgram, share_group: str) -> None:
        self._registry = registry
        own = settings.bridge
        self.bridge_id = f"{socket.gethostname()[:40]}-{secrets.token_hex(4)}"
        self.link = BrokerLink(
            settings.mqtt,
            client_id=f"bridge-{self.bridge_id}",
            subscriptions=_SHARED,
            handle=self._dispatch,
            reject=self._reject,
            share_group=share_group,
        )
        self.ingest = EventIngest(registry, self.link.publish, own)
        self.sync_responder = SyncResponder(registry, self.link.publish, own)
        self.registrations = RegistrationHandler(registry, self.link.publish)
        self.rejections = RejectionHandler(registry, self.link.publish)
        self.retained = RetainedCleaner(registry, self.link.clear_retained, own.poll_seconds)
        self.publisher = DeltaPublisher(registry, self.link.publish, own.poll_seconds)
        self.commands = CommandDispatcher(registry, self.link.publish, own.poll_seconds)
        self.presence = Presence(registry, own, on_written=self.commands.wake, judge=self.publisher.judge)
        self.publisher.on_progress(self.presence.judge_again)
        self.housekeeping = Housekeeping(
            registry,
            timedelta(days=settings.registry.tombstone_retention_days),
            unseen=timedelta(days=settings.tracking.retention_days),
        )
        self.link.on_connect(self._publish_heads_again)
        self.probe = ConnectionProbe(registry.mongo)
        self._workers = Workers(registry.mongo)
        lease = Lease(registry.mongo, "publisher", self.bridge_id, own.lease_seconds)
        self.publisher_election = LeaderElection(lease, own.lease_seconds, self._lead, "publisher")
        seconds = settings.tracking.lease_seconds
        self.tracker_election = LeaderElection(
            Lease(registry.mongo, "tracker", self.bridge_id, seconds),
            seconds,
            self._track,
            "tracker",
            is_able=lambda: self.link.connected,
        )
        self.observations = ObservationIngest(
            registry,
            self.link.publish,
            settings.tracking,
            may_track=self.tracker_election.holds_lease,
        )
        self._handlers: dict[Channel[Any], Callable[[Decoded[Any], bytes], None]] = {
            channels.SYNC_REQUEST: self.sync_responder.accept_request,
            channels.REGISTER: self.registrations.accept_request,
            **dict.fromkeys(presence.FOLLOWED, self.presence.accept_report),
            channels.COMMAND_RESULT: self.commands.note_result,
            channels.OBSERVATION: self.observations.accept,
        }

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, then store waiting events and release the leases."""
        tasks = [
            asyncio.create_task(work, name=name)
            for name, work in {
                "link": self.link.stay_connected(),
                "ingest": self.ingest.ingest_events(),
                "answers": self.sync_responder.answer_requests(),
                "registrar": self.registrations.answer_requests(),
                "refusals": self.rejections.handle_rejections(),
                "presence": self.presence.write_reports(),
                "leadership": self.publisher_election.compete(),
                "faces": self._maintain_face_search(),
                "tracking": self.tracker_election.compete(),
                "health": self._report_health(),
                "probe": self.probe.probe_regularly(),
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
            await asyncio.wait_for(self._workers.leave(self.bridge_id), _LEAVE_SECONDS)

    def _dispatch(self, decoded: Decoded[Any], payload: bytes, settle: Callable[[], None]) -> None:
        if decoded.channel is channels.EVENT:
            self.ingest.accept_event(decoded, payload, settle)
            return
        # What these messages are about is asked for or told again, should it be lost with this process.
        self._handlers[decoded.channel](decoded, payload)
        settle()

    def _reject(self, topic: str, payload: bytes, error: ContractError) -> None:
        observed = channels.OBSERVATION.match(topic)
        if observed:
            # Not stored as a dead letter: an observation contains a face and is worthless a second later.
            self.observations.reject(observed["device_id"], error)
            return
        self.rejections.reject(topic, payload, error)

    async def _publish_heads_again(self) -> None:
        self.publisher.forget_heads()

    async def _lead(self) -> None:
        """Run the tasks of the leader until cancelled."""
        self.commands.forget()
        self.link.follow(_LEADER_CHANNELS)
        self.publisher.forget_heads()
        try:
            await asyncio.gather(
                self.publisher.publish_changes(),
                self.publisher.watch_changes(),
                self.commands.dispatch_commands(),
                self.commands.watch_commands(),
                self.retained.clear_regularly(),
                self.retained.watch_placements(),
                self.housekeeping.tidy_regularly(),
            )
        finally:
            self.link.unfollow(_LEADER_CHANNELS)

    async def _maintain_face_search(self) -> None:
        """Load all faces in every worker, so that a new tracker need not load them first."""
        await asyncio.gather(self._registry.face_search.follow_changes(), self._load_faces())

    async def _load_faces(self) -> None:
        started = time.monotonic()
        count = await retry(self._prepare_spaces, on=RegistryError, report=_report_unreadable_faces)
        _log.info("face index ready spaces=%d seconds=%.1f", count, time.monotonic() - started)

    async def _prepare_spaces(self) -> int:
        dimensions = await self._registry.spaces.dimensions()
        for space_id, dimension in dimensions.items():
            await self._registry.face_search.prepare_space(EmbeddingSpace(space_id, dimension))
        return len(dimensions)

    async def _track(self) -> None:
        """Run the task of the tracker until cancelled."""
        self.link.follow([channels.OBSERVATION])
        try:
            await self.observations.ingest_observations()
        finally:
            self.link.unfollow([channels.OBSERVATION])

    def health(self) -> dict[str, Any]:
        """Return this worker's counters, for its health document and its log."""
        parts = {
            "link": self.link.counters,
            "ingest": self.ingest.counters,
            "answers": self.sync_responder.counters,
            "registrar": self.registrations.counters,
            "admissions": self._registry.edge_registration.counters,
            "refusals": self.rejections.counters,
            "presence": self.presence.counters,
            "publisher": self.publisher.counters,
            "commands": self.commands.counters,
            "retained": self.retained.counters,
            "housekeeping": self.housekeeping.counters,
            "observations": self.observations.counters,
        }
        return {
            "connected": self.link.connected,
            "leading": self.publisher_election.is_leading,
            "tracking": self.tracker_election.is_leading,
            "people_present": self.observations.active_count,
            "registry_failing_since": self.ingest.failing_since,
            "rejected_bytes_by_device": dict(self.rejections.bytes_by_device.most_common(_MOST_REJECTED)),
            **{name: dict(counters) for name, counters in parts.items()},
        }

    async def _report_health(self) -> None:
        while True:
            now = utc_now()
            try:
                await self._workers.report(self.bridge_id, self.health(), now)
                await self._workers.forget(now - _SILENT_WORKER_AGE)
            except RegistryError as error:
                _log.warning("bridge cannot write its health document error=%s", type(error).__name__)
            await asyncio.sleep(_HEALTH_SECONDS)


def _report_unreadable_faces(error: Exception) -> None:
    _log.warning("face index cannot be loaded yet; trying again error=%s", type(error).__name__)


async def open_registry(settings: BridgeProgram) -> Registry:
    """Open the registry with the configured spaces.

    Raises RegistryUnavailableError or ContractError.
    """
    own = settings.bridge
    retention = Retention(own.image_retention_days, own.dead_letter_retention_days)
    admission = EventAdmission(timedelta(days=own.event_max_age_days))
    registry = await Registry.open(
        settings.mongo, retention, settings.registry, settings.search, event_admission=admission
    )
    own_model = await registry.spaces.ensure_record(DEFAULT_FACE_SPACE)
    if own_model.model_sha256 != DEFAULT_FACE_SPACE.model_sha256:
        _log.error(
            "bridge found another model under the name of the built-in one; cameras with the built-in model "
            "match nothing: remove the space and enroll again space=%s",
            own_model.space,
        )
    for space_id, dimension in settings.bridge.default_spaces.items():
        await registry.spaces.ensure(EmbeddingSpace(space_id, dimension))
    warn_of_missing_limits(await registry.spaces.records())
    return registry
