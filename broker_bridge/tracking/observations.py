"""Observations in, assignments out: what one worker does while it holds the tracker's lease."""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta

import numpy as np

from broker_bridge.common.clock import utc_now
from broker_bridge.contract import channels
from broker_bridge.contract.channels import Decoded
from broker_bridge.contract.embeddings import Vector, normalise, to_array
from broker_bridge.contract.errors import (
    DEVICE_UNKNOWN,
    OBSERVATION_TIME_IMPLAUSIBLE,
    VECTOR_INVALID,
    ContractError,
)
from broker_bridge.contract.messages import Assignment, Observation
from broker_bridge.contract.wire import format_time
from broker_bridge.link import Publish
from broker_bridge.registry import Registry, RegistryError
from broker_bridge.registry.detected_persons.model import Box, ObservedFace
from broker_bridge.registry.detected_persons.settings import TrackingSettings
from broker_bridge.registry.settings import RegistrySettings

from .change_listener import DetectedPersonChanges
from .tracker import Tracker

_log = logging.getLogger(__name__)

_MOST_WAITING = 2000
_MET_AT_ONCE = 64
_SENT_AT_ONCE = 100
_RETRY_SECONDS = 1.0
_LAST_WRITE_SECONDS = 1.5
# Whoever was not looked up by then has been seen again.
_STALE = timedelta(seconds=5)
_SAID_AGAIN = timedelta(minutes=1)
_UNIT_TOLERANCE = 1e-3


_Arrived = tuple[str, Observation, datetime]
"""Device id, what it has sent, and when it came."""


class ObservationIngest:
    """Admits what cameras see, asks the tracker, answers. Of a worker that does not track it takes nothing.

    `counters` has `received`, `assigned`, `refused_<code>`, `dropped_queue_full` and `dropped_stale` (more
    come than can be looked up), `unanswered` (MongoDB was away), `sync_failures`, and those of the tracker.
    """

    def __init__(
        self,
        registry: Registry,
        publish: Publish,
        settings: TrackingSettings,
        people: RegistrySettings,
        *,
        may_track: Callable[[], bool] = lambda: True,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._registry = registry
        self._publish = publish
        self._settings = settings
        self._people = people
        self._may_track = may_track
        self._now = now
        self._tolerance = timedelta(seconds=settings.clock_tolerance)
        self._tracker: Tracker | None = None
        self._sites: dict[str, str] = {}
        self._dimensions: dict[str, int] = {}
        self._waiting: deque[_Arrived] = deque()
        self._answers: deque[tuple[str, Assignment]] = deque()
        self._come = asyncio.Event()
        self._answered = asyncio.Event()
        self._said: dict[tuple[str, str], datetime] = {}
        self._counted: Counter[str] = Counter()

    @property
    def counters(self) -> Counter[str]:
        tracked = self._tracker.counters if self._tracker else Counter[str]()
        return self._counted + tracked

    @property
    def active_count(self) -> int:
        """How many people are in memory."""
        return len(self._tracker) if self._tracker else 0

    @property
    def is_tracking(self) -> bool:
        """Whether observations are answered here."""
        return self._tracker is not None and self._may_track()

    def accept(self, decoded: Decoded[Observation], _: bytes) -> None:
        """Answer at once for somebody who is here; everybody else has to be looked up."""
        if self._tracker is None or not self._may_track():
            return
        self._counted["received"] += 1
        device_id, observation, at = decoded.ids["device_id"], decoded.message, self._now()
        if device_id in self._sites and observation.space in self._dimensions:
            seen = self._admit(device_id, observation, at)
            known = seen and self._tracker.match_active(seen)
            if known:
                self._answer(device_id, known)
            if known or not seen:
                return
        if len(self._waiting) >= _MOST_WAITING:
            self._counted["dropped_queue_full"] += 1
            return
        self._waiting.append((device_id, observation, at))
        self._come.set()

    async def ingest_observations(self) -> None:
        """Track until cancelled, then write what is not written."""
        tracker = Tracker(self._registry, self._settings, self._people, may_track=self._may_track)
        self._tracker = tracker
        watch = DetectedPersonChanges(self._registry, tracker, self._counted, self._now)
        try:
            await asyncio.gather(self._meet(tracker), self._send(), self._sync(tracker), watch.run())
        finally:
            self._tracker = None
            self._counted += tracker.counters
            self._waiting.clear()
            self._answers.clear()
            if self._may_track():
                with suppress(RegistryError, asyncio.TimeoutError):
                    await asyncio.wait_for(tracker.write_pending(self._now()), _LAST_WRITE_SECONDS)

    # Admission

    def _admit(self, device_id: str, observation: Observation, at: datetime) -> ObservedFace | None:
        """What was observed, checked; None for what is refused, which is counted."""
        try:
            return self._checked(device_id, observation, at)
        except ContractError as error:
            self.reject(device_id, error)
            return None

    def _checked(self, device_id: str, observation: Observation, at: datetime) -> ObservedFace:
        if abs(observation.captured_at - at) > self._tolerance:
            raise ContractError(
                OBSERVATION_TIME_IMPLAUSIBLE,
                f"the observation says {format_time(observation.captured_at)}, the backend's clock "
                f"{format_time(at)}: check the camera's clock",
            )
        site = self._sites.get(device_id)
        if site is None:
            raise ContractError(DEVICE_UNKNOWN, f"{device_id} is not registered")
        dimension = self._dimensions.get(observation.space)
        if dimension is None:
            raise self._registry.spaces.unknown(observation.space, self._dimensions)
        return ObservedFace(
            device_id=device_id,
            site_id=site,
            track_id=observation.track_id,
            box=Box(*observation.bbox),
            space=observation.space,
            vector=_unit(observation.vector, dimension),
            quality=observation.quality,
            captured_at=observation.captured_at,
            seen_at=at,
        )

    def reject(self, device_id: str, error: ContractError) -> None:
        """Count; a camera that goes on with it is told of once a minute. The vector goes nowhere."""
        self._counted[f"refused_{error.code}"] += 1
        now, said = self._now(), self._said.get((device_id, error.code))
        if said is None or now - said >= _SAID_AGAIN:
            self._said[device_id, error.code] = now
            _log.warning("observations of %s are refused: %s", device_id, error.code)

    async def _introduce(self, arrived: Sequence[_Arrived]) -> None:
        """Learn the cameras and spaces that are new. Raises RegistryError."""
        cameras = {device_id for device_id, _, _ in arrived} - self._sites.keys()
        if cameras:
            await self._read_sites(cameras)
        if any(observation.space not in self._dimensions for _, observation, _ in arrived):
            self._dimensions = await self._registry.spaces.dimensions()

    async def _read_sites(self, cameras: Iterable[str]) -> None:
        """Where cameras are now: some move, some are taken away."""
        asked = sorted(cameras)
        known = await self._registry.devices.registered(asked)
        for device_id in asked:
            self._sites.pop(device_id, None)
            if device_id in known:
                self._sites[device_id] = known[device_id].site_id

    # Work

    async def _meet(self, tracker: Tracker) -> None:
        while True:
            await self._come.wait()
            self._come.clear()
            while self._waiting:
                try:
                    await self._meet_some(tracker)
                except RegistryError as error:
                    _log.warning("nobody can be looked up or created: %s", type(error).__name__)
                    await asyncio.sleep(_RETRY_SECONDS)

    async def _meet_some(self, tracker: Tracker) -> None:
        arrived = [self._waiting.popleft() for _ in range(min(_MET_AT_ONCE, len(self._waiting)))]
        fresh = [one for one in arrived if self._now() - one[2] < _STALE]
        self._counted["dropped_stale"] += len(arrived) - len(fresh)
        try:
            await self._introduce(fresh)
            batch = [seen for one in fresh if (seen := self._admit(*one))]
            assignments = await tracker.assign_batch(batch)
        except RegistryError:
            # Their cameras will see them again in a second; what is old by then need not be told.
            self._counted["unanswered"] += len(fresh)
            raise
        for seen, assignment in zip(batch, assignments, strict=True):
            self._answer(seen.device_id, assignment)

    def _answer(self, device_id: str, assignment: Assignment) -> None:
        self._answers.append((device_id, assignment))
        self._answered.set()

    async def _send(self) -> None:
        while True:
            await self._answered.wait()
            self._answered.clear()
            while self._answers:
                # Together: each waits for the socket to be written to, which is once a turn of the loop.
                some = [self._answers.popleft() for _ in range(min(_SENT_AT_ONCE, len(self._answers)))]
                sent = await asyncio.gather(
                    *(self._publish(channels.ASSIGNED, told, device_id=device_id) for device_id, told in some)
                )
                self._counted["assigned"] += sum(sent)

    async def _sync(self, tracker: Tracker) -> None:
        while True:
            await asyncio.sleep(self._settings.db_sync_interval)
            try:
                if self._may_track():
                    await tracker.write_pending(self._now())
                    await self._read_sites(self._sites)
                    self._dimensions = await self._registry.spaces.dimensions()
            except RegistryError as error:
                self._counted["sync_failures"] += 1
                _log.warning("what was seen could not be written and will be: %s", type(error).__name__)


def _unit(vector: bytes, dimension: int) -> Vector:
    """float32[dimension] of unit length; raises ContractError(`vector-invalid`)."""
    if len(vector) != 4 * dimension:
        raise ContractError(VECTOR_INVALID, f"expected float32[{dimension}], got {len(vector)} bytes")
    values = to_array(vector)
    # The first comparison keeps what would overflow from the product; NaN fails it too.
    if np.abs(values).max() <= 1 + _UNIT_TOLERANCE and abs(np.dot(values, values) - 1) < _UNIT_TOLERANCE:
        return values
    return to_array(normalise(values, dimension))
