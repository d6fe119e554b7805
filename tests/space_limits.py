"""Limits for spaces of tests, which no model shipped."""

import json
from types import SimpleNamespace
from typing import cast

from broker_bridge.contract.embeddings import EmbeddingSpace
from broker_bridge.contract.spaces import LimitsSource, SpaceLimits, SpaceRecord
from broker_bridge.registry import Registry
from broker_bridge.registry.detected_persons.settings import TrackingSettings
from broker_bridge.registry.spaces import SpaceRegistry
from broker_bridge.tracking.tracked_limits import TrackedLimits

LIMITS = SpaceLimits(
    distance=0.35,
    margin=0.05,
    same_person=0.65,
    look_alike=0.5,
    tracked_similarity=0.6,
    tracked_margin=0.05,
    tracked_by_position=0.45,
)


async def ensure_with_limits(registry: Registry, *spaces: EmbeddingSpace, **changed: float) -> None:
    """Record each space with LIMITS, or with some of them changed."""
    for space in spaces:
        await registry.spaces.ensure_record(
            SpaceRecord(
                space=space.id,
                dimension=space.dimension,
                model_sha256=space.model_sha256,
                limits=LIMITS.model_copy(update=changed),
                source=LimitsSource(kind="shipped"),
            )
        )


def tracked_limits(space: str, limits: SpaceLimits, settings: TrackingSettings) -> TrackedLimits:
    """Return the tracker's limits where one space is on record."""
    record = SpaceRecord(space=space, dimension=1, limits=limits)
    return TrackedLimits(cast("SpaceRegistry", SimpleNamespace(cached={space: record})), settings)


def limits_variable(space: str) -> tuple[str, str]:
    """Return name and value of the variable that gives `space` LIMITS in a program."""
    return "WFM_REGISTRY__LIMITS", json.dumps({space: LIMITS.model_dump()})
