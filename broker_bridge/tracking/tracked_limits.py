"""Give the tracker the limits of each space, without a read."""

from broker_bridge.contract.spaces import SpaceLimits
from broker_bridge.registry.detected_persons.settings import TrackingSettings
from broker_bridge.registry.spaces import SpaceRegistry, limits_missing


class TrackedLimits:
    """The limits by space, as of the last read of the spaces.

    A space that loses its limits keeps the last ones: an observation that was admitted is still decided.
    """

    def __init__(self, spaces: SpaceRegistry, settings: TrackingSettings) -> None:
        self._spaces = spaces
        self._settings = settings
        self._read = spaces.cached
        self._limits: dict[str, SpaceLimits] = {}
        self._take_over()

    def in_space(self, space: str) -> SpaceLimits:
        """Return the limits of a space. Raises ContractError(`limits-missing`)."""
        if self._spaces.cached is not self._read:
            self._read = self._spaces.cached
            self._take_over()
        limits = self._limits.get(space)
        if limits is None:
            raise limits_missing(space)
        return limits

    def _take_over(self) -> None:
        for space, record in self._read.items():
            if record.limits is not None:
                self._limits[space] = self._settings.tracked_limits(space, record.limits)
