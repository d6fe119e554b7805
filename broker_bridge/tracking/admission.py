"""Check observations of cameras before the tracker sees them."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import numpy as np

from broker_bridge.contract.embeddings import Vector, normalise, to_array
from broker_bridge.contract.errors import (
    DEVICE_UNKNOWN,
    OBSERVATION_TIME_IMPLAUSIBLE,
    VECTOR_INVALID,
    ContractError,
)
from broker_bridge.contract.messages import Observation
from broker_bridge.contract.wire import format_time
from broker_bridge.registry import Registry
from broker_bridge.registry.detected_persons.model import Box, ObservedFace
from broker_bridge.registry.detected_persons.settings import TrackingSettings
from broker_bridge.registry.spaces import limits_of

_log = logging.getLogger(__name__)

_LOG_INTERVAL = timedelta(minutes=1)
_UNIT_TOLERANCE = 1e-3


class ReceivedObservation(NamedTuple):
    """An observation as it came from a camera."""

    device_id: str
    message: Observation
    received_at: datetime


class ObservationAdmission:
    """Knows the registered cameras and the spaces. `counters` has `refused_<code>`."""

    def __init__(
        self,
        registry: Registry,
        settings: TrackingSettings,
        counters: Counter[str],
        now: Callable[[], datetime],
    ) -> None:
        self._registry = registry
        self._tolerance = timedelta(seconds=settings.clock_tolerance)
        self._counters = counters
        self._now = now
        self._sites: dict[str, str] = {}
        self._logged_at: dict[tuple[str, str], datetime] = {}

    def can_check(self, received: ReceivedObservation) -> bool:
        """Return whether camera and space are known here, so that `admit` needs no read."""
        return received.device_id in self._sites and received.message.space in self._registry.spaces.cached

    def admit(self, received: ReceivedObservation) -> ObservedFace | None:
        """Return the checked face; None for a rejected observation, which is counted."""
        try:
            return self._check(received)
        except ContractError as error:
            self.reject(received.device_id, error)
            return None

    def _check(self, received: ReceivedObservation) -> ObservedFace:
        device_id, observation, received_at = received
        if abs(observation.captured_at - received_at) > self._tolerance:
            raise ContractError(
                OBSERVATION_TIME_IMPLAUSIBLE,
                f"the observation says {format_time(observation.captured_at)}, the backend's clock "
                f"{format_time(received_at)}: check the camera's clock",
            )
        site = self._sites.get(device_id)
        if site is None:
            raise ContractError(DEVICE_UNKNOWN, f"{device_id} is not registered")
        records = self._registry.spaces.cached
        record = records.get(observation.space)
        if record is None:
            raise self._registry.spaces.unknown(observation.space, records)
        limits_of(record)
        return ObservedFace(
            device_id=device_id,
            site_id=site,
            track_id=observation.track_id,
            box=Box(*observation.bbox),
            space=observation.space,
            vector=_to_unit(observation.vector, record.dimension),
            quality=observation.quality,
            captured_at=observation.captured_at,
            seen_at=received_at,
        )

    def reject(self, device_id: str, error: ContractError) -> None:
        """Count a rejected observation, and log it once a minute.

        The vector is stored nowhere.
        """
        self._counters[f"refused_{error.code}"] += 1
        now, logged_at = self._now(), self._logged_at.get((device_id, error.code))
        if logged_at is None or now - logged_at >= _LOG_INTERVAL:
            self._logged_at[device_id, error.code] = now
            _log.warning("tracker rejects observations device=%s code=%s", device_id, error.code)

    async def read_missing(self, batch: Sequence[ReceivedObservation]) -> None:
        """Read the cameras and spaces of `batch` that are not known here.

        Raises RegistryError.
        """
        cameras = {received.device_id for received in batch} - self._sites.keys()
        if cameras:
            await self._read_sites(cameras)
        if any(received.message.space not in self._registry.spaces.cached for received in batch):
            await self._registry.spaces.records()

    async def refresh(self) -> None:
        """Read all known cameras and all spaces again.

        Some move, some are removed, limits change. Raises RegistryError.
        """
        await self._read_sites(self._sites)
        await self._registry.spaces.records()

    async def _read_sites(self, cameras: Iterable[str]) -> None:
        device_ids = sorted(cameras)
        registered = await self._registry.devices.registered(device_ids)
        for device_id in device_ids:
            self._sites.pop(device_id, None)
            if device_id in registered:
                self._sites[device_id] = registered[device_id].site_id


def _to_unit(vector: bytes, dimension: int) -> Vector:
    """Return float32[dimension] of unit length.

    Raises ContractError(`vector-invalid`).
    """
    if len(vector) != 4 * dimension:
        raise ContractError(VECTOR_INVALID, f"expected float32[{dimension}], got {len(vector)} bytes")
    values = to_array(vector)
    # The first comparison keeps values out of the product that would overflow it; NaN fails it too.
    if np.abs(values).max() <= 1 + _UNIT_TOLERANCE and abs(np.dot(values, values) - 1) < _UNIT_TOLERANCE:
        return values
    return to_array(normalise(values, dimension))
