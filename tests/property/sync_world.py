"""The whole of sync except the network, which a test plays.

Messages are lost, repeated and reordered. After each step `check` compares every device with the registry
at the position that the device reports.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any

from broker_bridge.contract import channels
from broker_bridge.contract.channels import Channel
from broker_bridge.contract.digest import Digest
from broker_bridge.contract.errors import ContractError
from broker_bridge.contract.messages import SyncDelta, SyncHead, Upsert
from broker_bridge.contract.wire import MAX_DOWN_BYTES, WireModel
from broker_bridge.registry import Registry
from broker_bridge.registry.identities.model import DeleteIdentity, EnrollIdentity, IdentityChange
from tests.device_samples import Clock

from . import sync_registry
from .sync_camera import Camera, Place
from .sync_registry import Backup, Bridge
from .sync_steps import DIMENSIONS, FACE, GAIT, OTHER_FACE, Step
from .sync_view import View

PLACES = (
    Place("cam-001", "lobby", {FACE: 8}),
    Place("cam-002", "lobby", {FACE: 8, GAIT: 4}, dev_mode=True),
    Place("cam-003", "gate", {GAIT: 4}),
    Place("cam-004", "gate", {FACE: 8, OTHER_FACE: 8}),
)
# Nothing may take longer than this many rounds of asking to become quiet.
_ROUNDS = 400

Row = tuple[str, str, bytes]
Refusals = frozenset[tuple[str, str]]
Moment = tuple[View, Refusals]


class SyncWorld:
    """One registry, one bridge, a few devices at two sites.

    `may_be_late` says that a page may tell what was so earlier.
    """

    def __init__(
        self,
        registry: Registry,
        loop: asyncio.AbstractEventLoop,
        folder: Path,
        empty: Path,
        *,
        may_be_late: bool = False,
    ) -> None:
        self._registry = registry
        self._loop = loop
        self._clock = Clock()
        self._backup: Backup | None = None
        self._backed_up_refusals: Refusals = frozenset()
        self._heads: dict[str, bytes] = {}
        self._may_be_late = may_be_late
        self._moments: list[Moment] = []
        # Per site: the identities ever visible there, and the last change sent of each.
        self._ever_valid: dict[str, set[Row]] = {place.site: set() for place in PLACES}
        self._last_news: dict[str, dict[str, int]] = {place.site: {} for place in PLACES}
        # Kept beside the registry: `(user id, modality)` without consent.
        self._refusals: Refusals = frozenset()
        self._run(sync_registry.empty(registry))
        self.cameras = [
            Camera(place, folder / f"{place.device_id}.db", self._clock, empty) for place in PLACES
        ]
        self._refresh()
        self._bridge = Bridge(registry, loop, self._deliver)

    def close(self) -> None:
        self._bridge.close()
        for camera in self.cameras:
            camera.close()

    def play(self, step: Step) -> None:
        getattr(self, step[0])(*step[1:])

    def _run(self, what: Awaitable[Any]) -> Any:
        return self._loop.run_until_complete(what)

    # Changes of the registry

    def carry_out(self, orders: Sequence[IdentityChange]) -> None:
        self._run(self._change("carry_out", orders))

    def remove_modality(self, user_id: str, modality: str) -> None:
        self._run(self._change("remove_modality", user_id, modality))

    def restore(self, user_id: str) -> None:
        self._run(self._change("restore", user_id))

    def merge(self, source: str, into: str) -> None:
        self._run(self._change("merge", source, into))

    def part(self, source: str) -> None:
        self._run(self._change("part", source))

    def purge(self, oldest: int) -> None:
        self._run(self._change("purge", oldest))

    def delete_and_purge(self, user_id: str) -> None:
        """As for a device that was away for longer than tombstones are kept."""
        self._run(self._change("delete_and_purge", user_id))

    def begin_epoch(self) -> None:
        self._run(self._registry.versions.begin_epoch())
        self._refresh()

    def back_up(self) -> None:
        self._backup = self._run(sync_registry.back_up(self._registry))
        self._backed_up_refusals = self._refusals

    def bring_back(self) -> None:
        if self._backup:
            self._run(sync_registry.bring_back(self._registry, self._backup))
            self._refusals = self._backed_up_refusals
            for news in self._last_news.values():
                news.clear()
            self._refresh()

    async def _change(self, name: str, *args: Any) -> None:
        """Apply a change; the registry may reject it."""
        identities, merges = self._registry.identities, self._registry.identity_merges
        try:
            if name == "carry_out":
                for outcome in await identities.apply(*args):
                    if not outcome.error:
                        self._note_consent(outcome.change, fresh=outcome.created)
            elif name == "purge":
                await sync_registry.purge(self._registry, *args)
            elif name == "delete_and_purge":
                await self._change("carry_out", [DeleteIdentity(*args)])
                await self._change("purge", len(self.view.people))
            elif name in ("merge", "part"):
                await (merges.merge if name == "merge" else merges.undo)(*args)
                self._refusals = await self._recorded_refusals()
            else:
                await getattr(identities, name)(*args)
        except ContractError:
            return
        self._look_at(await View.read(self._registry))

    def _note_consent(self, order: IdentityChange, *, fresh: bool) -> None:
        if not isinstance(order, EnrollIdentity):
            return
        if fresh:
            self._refusals = frozenset(one for one in self._refusals if one[0] != order.user_id)
        for modality, given in (order.consent or {}).items():
            said = {(order.user_id, modality)}
            self._refusals = self._refusals - said if given else self._refusals | said

    async def _recorded_refusals(self) -> Refusals:
        people = (await View.read(self._registry)).people
        return frozenset(
            (user_id, modality)
            for user_id, one in people.items()
            for modality, given in one.consent.items()
            if not given
        )

    def _refresh(self) -> None:
        self._look_at(self._run(View.read(self._registry)))

    def _look_at(self, view: View) -> None:
        self.view = view
        self._moments.append((view, self._refusals))
        for site, news in self._last_news.items():
            for user_id, one in view.people.items():
                if one.is_heard_at(site):
                    news[user_id] = one.version
                if one.is_at(site):
                    self._ever_valid[site] |= {(user_id, space, vector) for _, space, vector in one.rows}

    # The bridge

    def look(self) -> None:
        self._bridge.look()

    def restart_bridge(self) -> None:
        self._bridge.restart()

    def lose_broker(self) -> None:
        self._bridge.is_connected = False
        for camera in self.cameras:
            camera.disconnect()

    def find_broker(self) -> None:
        self._bridge.reconnect()

    def answer(self, camera: int, back: int) -> None:
        """Let the bridge answer the device's last or an earlier request, maybe again."""
        asked = self.cameras[camera].asked
        if asked:
            self._answer(self.cameras[camera], asked[-1 - back % len(asked)])

    def answer_amid(self, camera: int, change: Step) -> None:
        """Let the bridge answer while the registry changes."""
        asked = self.cameras[camera].asked
        if asked:
            self._answer(self.cameras[camera], asked[-1], change)

    def _answer(self, camera: Camera, request: Any, change: Step | None = None) -> None:
        place = camera.place
        meanwhile = (lambda: self._change(*change)) if change else None
        known = len(self._moments)
        page = self._bridge.answer(
            place.device_id, channels.SYNC_REQUEST.decode(request.to_json()), meanwhile
        )
        assert page.error is None
        moments = self._moments if self._may_be_late else self._moments[known - 1 :]
        _check_upserts(page.upserts, place, moments, may_name=place.dev_mode)
        self._deliver(channels.SYNC_PAGE, page, device_id=place.device_id)

    def _deliver(self, channel: Channel[Any], message: WireModel, **ids: str) -> None:
        """Queue a message of the bridge for its devices after checking it."""
        payload = message.to_json()
        assert len(payload) <= MAX_DOWN_BYTES
        if isinstance(message, SyncHead):
            self._heads[ids["site_id"]] = payload
        for camera in self.cameras:
            place = camera.place
            if place.site == ids.get("site_id") or place.device_id == ids.get("device_id"):
                if isinstance(message, SyncDelta):
                    _check_upserts(message.upserts, place, self._moments[-1:], may_name=False)
                if camera.online:
                    camera.post(channel, payload)

    # The network and the devices

    def deliver(self, camera: int, index: int) -> None:
        inbox = self.cameras[camera].inbox
        if inbox:
            self.cameras[camera].take(inbox.pop(index % len(inbox)))

    def repeat(self, camera: int, index: int) -> None:
        inbox = self.cameras[camera].inbox
        if inbox:
            self.cameras[camera].take(inbox[index % len(inbox)])

    def lose(self, camera: int, index: int) -> None:
        inbox = self.cameras[camera].inbox
        if inbox:
            inbox.pop(index % len(inbox))

    def deliver_all(self, camera: int) -> None:
        """In the order in which they were sent."""
        while inbox := self.cameras[camera].inbox:
            self.cameras[camera].take(inbox.pop(0))

    def connect(self, camera: int) -> None:
        """A connection, or another one: the broker's retained head is the first to come."""
        one = self.cameras[camera]
        if self._bridge.is_connected:
            one.disconnect()
            one.connect()
            if one.place.site in self._heads:
                one.post(channels.SYNC_HEAD, self._heads[one.place.site])

    def restart(self, camera: int) -> None:
        self.cameras[camera].restart()

    def wait(self, seconds: float) -> None:
        self._clock.advance(seconds)
        for camera in self.cameras:
            camera.tick()

    def catch_up(self, camera: int) -> None:
        """Nothing comes in between until the device has all it asked for."""
        one = self.cameras[camera]
        if not one.online:
            self.connect(camera)
        for _ in range(_ROUNDS):
            known = len(one.asked)
            due = one.tick()
            self.deliver_all(camera)
            for request in one.asked[known:]:
                self._answer(one, request)
            if not one.inbox and len(one.asked) == known:
                if due is None or not one.online:
                    return
                self._clock.advance(max(0.0, due - self._clock()))
        raise AssertionError(f"{one.place.device_id} still asks after {_ROUNDS} rounds")

    def settle(self) -> None:
        """Deliver every message of every device until nothing is left."""
        self.find_broker()
        self.look()
        for camera in range(len(self.cameras)):
            self.connect(camera)
        for camera in range(len(self.cameras)):
            self.catch_up(camera)

    # What must hold

    def check(self) -> None:
        """At every moment."""
        for camera in self.cameras:
            place = camera.place
            status = camera.sync.get_sync_status()
            assert status.counts.get("drift", 0) == 0, "a resync would hide the wrong decision before"
            assert status.error is None
            strangers = camera.stored() - self._ever_valid[place.site]
            assert not strangers, f"{place.device_id} holds what was never valid there"
            held = camera.gallery()
            rows = {(user, space, vector) for user, one in held.items() for _, space, vector in one.rows}
            assert camera.compared_with() == rows, "memory and file differ"
            cursor = camera.db.cursor()
            if cursor and cursor.epoch == self.view.epoch:
                self._check_told(camera, cursor.version, held)

    def _check_told(self, camera: Camera, version: int, held: Any) -> None:
        """Check that a device holds what each change left that the device has confirmed."""
        place = camera.place
        news = self._last_news[place.site]
        wanted = self.view.gallery(place.site, frozenset(place.spaces), with_names=place.dev_mode)
        for user_id in held.keys() | wanted.keys():
            if news.get(user_id, 0) <= version:
                assert held.get(user_id) == wanted.get(user_id), f"{place.device_id}, {user_id} at {version}"

    def check_equal(self) -> None:
        """Check that every settled gallery equals the registry in digest and version."""
        self.check()
        for camera in self.cameras:
            place = camera.place
            wanted = self.view.gallery(place.site, frozenset(place.spaces), with_names=place.dev_mode)
            assert camera.gallery() == wanted
            position = camera.sync.position()
            assert position is not None
            assert (position.epoch, position.version) == (self.view.epoch, self.view.head_version(place.site))
            head = channels.SYNC_HEAD.decode(self._heads[place.site])
            assert (head.epoch, head.version) == (position.epoch, position.version)
            assert head.spaces.keys() <= DIMENSIONS.keys()
            for space, digest in position.spaces.items():
                vectors = [
                    (user, vector) for user, one in wanted.items() for _, s, vector in one.rows if s == space
                ]
                recount = Digest()
                for user_id, vector in vectors:
                    recount = recount.plus(Digest.of(user_id, space, [vector]))
                assert (digest.count, digest.digest) == (recount.count, recount.hex)
                told = head.spaces.get(space)
                assert (told.count, told.digest) == (recount.count, recount.hex) if told else not vectors
            assert camera.db.verify()
            last = camera.applied[-1]
            assert (last.epoch, last.version, last.spaces) == (
                position.epoch,
                position.version,
                position.spaces,
            )


def _check_upserts(
    upserts: Sequence[Upsert], place: Place, moments: Sequence[Moment], *, may_name: bool
) -> None:
    """Check that the upserts were true, and permitted, at one moment of the read."""
    for upsert in upserts:
        assert upsert.display_name is None or may_name, "a name went out"
        sent = {(one.template_id, one.space, one.vector) for one in upsert.templates}
        modalities = {(upsert.user_id, space.partition(":")[0]) for _, space, _ in sent}
        states = [(view.people.get(upsert.user_id), refusals) for view, refusals in moments]
        assert any(
            known is not None and known.is_at(place.site) and sent <= known.rows and not modalities & refusals
            for known, refusals in states
        ), f"{upsert.user_id} was not so, or may not be sent to {place.site}"
