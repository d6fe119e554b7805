"""People, events and a model registry for tests of the device."""

import random
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np

from broker_bridge.contract.channels import Channel
from broker_bridge.contract.digest import Digest
from broker_bridge.contract.embeddings import normalise
from broker_bridge.contract.ids import new_event_id
from broker_bridge.contract.messages import (
    Event,
    Removal,
    SpaceHead,
    SyncDelta,
    SyncHead,
    SyncPage,
    SyncRequest,
    Upsert,
    WireTemplate,
)

SPACE = "face:test-8"
DIMENSION = 8
NOON = datetime(2026, 1, 15, 12, 0, tzinfo=timezone.utc)


class Clock:
    """Monotonic seconds and the time of day, moved by hand."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds

    def utc_now(self) -> datetime:
        return NOON + timedelta(seconds=self.seconds - 1000.0)

    def advance(self, seconds: float) -> None:
        self.seconds += seconds


def vector(seed: int, dimension: int = DIMENSION) -> bytes:
    return normalise(np.random.default_rng(seed).normal(size=dimension), dimension)


def person(user_id: str, version: int, *seeds: int, space: str = SPACE, name: str | None = None) -> Upsert:
    """Return one upsert with a template per seed (seed `version` if none is given)."""
    dimension = int(space.rpartition("-")[2])
    templates = [
        WireTemplate(template_id=f"t{n}", space=space, vector=vector(seed, dimension), quality=0.9)
        for n, seed in enumerate(seeds or (version,))
    ]
    return Upsert(user_id=user_id, version=version, display_name=name, templates=templates)


def event(number: int = 1, device_id: str = "cam-001", **changes: object) -> Event:
    fields = {
        "event_id": new_event_id("EV1", 1736942400000 + number, f"{number:06x}"),
        "device_id": device_id,
        "user_id": "EMP-12345",
        "event_type": "facial_id",
        "timestamp": NOON,
        "confidence": 0.92,
        "metadata": {"distance": 0.28},
    }
    return Event.model_validate({**fields, **changes})


class Out:
    def is_out(self) -> bool:
        return True


class ScriptedLink:
    """Keeps what is published; `submit` runs at once."""

    def __init__(self) -> None:
        self.up = True
        self.published: list[tuple[Channel[Any], Any]] = []

    def publish(self, channel: Channel[Any], payload: bytes, **ids: str) -> Out | None:
        if not self.up:
            return None
        self.published.append((channel, channel.decode(payload)))
        return Out()

    def submit(self, action: Any) -> None:
        action()

    def of(self, channel: Channel[Any]) -> list[Any]:
        return [message for one, message in self.published if one is channel]


class ModelRegistry:
    """A model of the bridge's answers for one site.

    It has versions in commit order, tombstones, a horizon and an epoch.
    """

    def __init__(self, epoch: str = "aa") -> None:
        self.epoch = epoch
        self.version = 0
        self.horizon = 0
        self.people: dict[str, Upsert] = {}
        self.tombstones: dict[str, int] = {}

    def enroll(self, user_id: str, *seeds: int, space: str = SPACE) -> SyncDelta:
        self.version += 1
        self.tombstones.pop(user_id, None)
        self.people[user_id] = person(user_id, self.version, *seeds, space=space)
        return self._delta(upserts=[self.people[user_id]])

    def delete(self, user_id: str) -> SyncDelta:
        self.version += 1
        self.people.pop(user_id, None)
        self.tombstones[user_id] = self.version
        return self._delta(removals=[Removal(user_id=user_id, version=self.version)])

    def _delta(self, **changes: list) -> SyncDelta:
        return SyncDelta(epoch=self.epoch, prev_version=self.version - 1, version=self.version, **changes)

    def purge(self) -> None:
        """Purge the tombstones: a device below the horizon needs a full snapshot."""
        self.horizon = max([self.horizon, *self.tombstones.values()])
        self.tombstones.clear()

    def restore(self, epoch: str, version: int) -> None:
        """A backup comes back: another epoch, and what is newer than `version` never was."""
        self.people = {key: one for key, one in self.people.items() if one.version <= version}
        self.tombstones = {key: one for key, one in self.tombstones.items() if one <= version}
        self.epoch, self.version = epoch, version

    def digest(self, space: str = SPACE) -> Digest:
        total = Digest()
        for one in self.people.values():
            vectors = [template.vector for template in one.templates if template.space == space]
            total = total.plus(Digest.of(one.user_id, space, vectors))
        return total

    def head(self, space: str = SPACE) -> SyncHead:
        digest = self.digest(space)
        return SyncHead(
            epoch=self.epoch,
            version=self.version,
            horizon=self.horizon,
            spaces={space: SpaceHead(count=digest.count, digest=digest.hex)},
        )

    def answer(self, request: SyncRequest, limit: int | None = None) -> SyncPage:
        limit = limit or request.limit
        resuming = request.epoch == self.epoch and request.reset_head_version is not None
        known = request.epoch == self.epoch and (
            request.since_version >= self.horizon or (resuming and request.reset_head_version >= self.horizon)
        )
        since = request.since_version if known else 0
        changes: list[Upsert | Removal] = [one for one in self.people.values() if one.version > since]
        changes += [
            Removal(user_id=key, version=version)
            for key, version in self.tombstones.items()
            if version > since
        ]
        changes.sort(key=lambda one: one.version)
        cut = changes[:limit]
        done = len(cut) == len(changes)
        return SyncPage(
            request_id=request.request_id,
            epoch=self.epoch,
            from_version=since,
            to_version=self.version if done else cut[-1].version,
            head_version=self.version,
            reset=not known,
            upserts=[one for one in cut if isinstance(one, Upsert)],
            removals=[one for one in cut if isinstance(one, Removal)],
            done=done,
        )


def seeded() -> random.Random:
    return random.Random(7)
