"""Select the limits of a match.

Configured ones come before those of the registry, these before those of the model file.
"""

from dataclasses import dataclass

from broker_bridge.contract.spaces import SpaceLimits
from device.events.match_limits import MatchLimits


@dataclass(frozen=True)
class SourcedLimits:
    """Limits and where they come from, for people."""

    match: MatchLimits
    source: str


class LimitsInUse:
    """The limits of a match in one space, by precedence.

    `configured` are this device's own, `shipped` those of the record beside the model file. Without any no
    face is matched. `follow_registry` is for one thread, all else for any.
    """

    def __init__(self, configured: MatchLimits | None, shipped: SpaceLimits | None) -> None:
        self._configured = configured
        self._shipped = shipped
        self._current = self._select(None)

    @property
    def current(self) -> SourcedLimits | None:
        return self._current

    def match_limits(self) -> MatchLimits | None:
        """Return the limits in use, None without any."""
        current = self._current
        return current.match if current else None

    def select(self, registry: SpaceLimits | None) -> SourcedLimits | None:
        """Return the limits that hold with those of the registry."""
        return self._select(registry)

    def follow_registry(self, registry: SpaceLimits | None) -> None:
        """Use the registry's limits from now on, where none are configured here."""
        self._current = self._select(registry)

    def _select(self, registry: SpaceLimits | None) -> SourcedLimits | None:
        if self._configured is not None:
            return SourcedLimits(self._configured, "configured on this device")
        if registry is not None:
            return SourcedLimits(_of_space(registry), "of the registry")
        if self._shipped is not None:
            return SourcedLimits(_of_space(self._shipped), "of the record beside the model")
        return None


def _of_space(limits: SpaceLimits) -> MatchLimits:
    return MatchLimits(limits.distance, limits.margin)
