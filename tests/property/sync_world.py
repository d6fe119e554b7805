"""Play the registry, a bridge and devices; a test loses and repeats messages.

After each step `check` compares every device with the registry at the version that the device has
confirmed.
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
from .sync_camera import Camera, DeviceSetup
from .sync_registry import Backup, Bridge
from .sync_steps import DIMENSIONS, FACE, GAIT, OTHER_FACE, Step
from .sync_view import View

SETUPS = (
    DeviceSetup("cam-001", "lobby", {FACE: 8}),
    DeviceSetup("cam-002", "lobby", {FACE: 8, GAIT: 4}, dev_mode=True),
    DeviceSetup("cam-003", "gate", {GAIT: 4}),
    DeviceSetup("cam-004", "gate", {FACE: 8, OTHER_FACE: 8}),
)
# The number of rounds of requests in which every device must have caught up.
_ROUNDS = 400

Row = tuple[str, str, bytes]
Refusals = frozenset[tuple[str, str]]
Moment = tuple[View, Refusals]


class SyncWorld:
    """Hold one registry, one bridge and a few devices at two sites.

    `may_be_late` allows pages to state an earlier moment of the registry.
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
        # Per site: all rows that were ever valid there, and the version of each identity's last change.
        self._ever_valid: dict[str, set[Row]] = {setup.site: set() for setup in SETUPS}
        self._last_changes: dict[str, dict[str, int]] = {setup.site: {} for setup in SETUPS}
        # `(user id, modality)` of each refused consent, tracked independently of the registry.
        self._refusals: Refusals = frozenset()
        self._run(sync_registry.empty(registry))
        self.cameras = [
            Camera(setup, folder / f"{setup.device_id}.db", self._clock, empty) for setup in SETUPS
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

    def apply_changes(self, changes: Sequence[IdentityChange]) -> None:
        self._run(self._change("apply_changes", changes))

    def remove_modality(self, user_id: str, modality: str) -> None:
        self._run(self._change("remove_modality", user_id, modality))

    def restore(self, user_id: str) -> None:
        self._run(self._change("restore", user_id))

    def merge(self, source: str, into: str) -> None:
        self._run(self._change("merge", source, into))

    def unmerge(self, source: str) -> None:
        self._run(self._change("unmerge", source))

    def purge(self, oldest: int) -> None:
        self._run(self._change("purge", oldest))

    def delete_and_purge(self, user_id: str) -> None:
        """Delete an identity and purge all tombstones, as for a device away for months."""
        self._run(self._change("delete_and_purge", user_id))

    def begin_epoch(self) -> None:
        self._run(self._registry.versions.begin_epoch())
        self._refresh()

    def back_up(self) -> None:
        self._backup = self._run(sync_registry.back_up(self._registry))
        self._backed_up_refusals = self._refusals

    def restore_backup(self) -> None:
        if self._backup:
            self._run(sync_registry.restore_backup(self._registry, self._backup))
            self._refusals = self._backed_up_refusals
            for last_changes in self._last_changes.values():
                last_changes.clear()
            self._refresh()

    async def _change(self, name: str, *args: Any) -> None:
        """Change the registry; a refused change has no effect.

        The registry refuses an unknown identity or a merge with itself.
        """
        identities, merges = self._registry.identities, self._registry.identity_merges
        try:
            if name == "apply_changes":
                for outcome in await identities.apply(*args):
                    if not outcome.error:
                        self._note_consent(outcome.change, fresh=outcome.created)
            elif name == "purge":
                await sync_registry.purge(self._registry, *args)
            elif name == "delete_and_purge":
                await self._change("apply_changes", [DeleteIdentity(*args)])
                await self._change("purge", len(self.view.identities))
            elif name in ("merge", "unmerge"):
                await (merges.merge if name == "merge" else merges.undo)(*args)
                self._refusals = await self._recorded_refusals()
            else:
                await getattr(identities, name)(*args)
        except ContractError:
            return
        self._record_view(await View.read(self._registry))

    def _note_consent(self, change: IdentityChange, *, fresh: bool) -> None:
        if not isinstance(change, EnrollIdentity):
            return
        if fresh:
            self._refusals = frozenset(refusal for refusal in self._refusals if refusal[0] != change.user_id)
        for modality, has_consent in (change.consent or {}).items():
            entry = {(change.user_id, modality)}
            self._refusals = self._refusals - entry if has_consent else self._refusals | entry

    async def _recorded_refusals(self) -> Refusals:
        identities = (await View.read(self._registry)).identities
        return frozenset(
            (user_id, modality)
            for user_id, identity in identities.items()
            for modality, has_consent in identity.consent.items()
            if not has_consent
        )

    def _refresh(self) -> None:
        self._record_view(self._run(View.read(self._registry)))

    def _record_view(self, view: View) -> None:
        self.view = view
        self._moments.append((view, self._refusals))
        for site, last_changes in self._last_changes.items():
            for user_id, identity in view.identities.items():
                if identity.is_synced_to(site):
                    last_changes[user_id] = identity.version
                if identity.is_at(site):
                    self._ever_valid[site] |= {(user_id, space, vector) for _, space, vector in identity.rows}

    # The bridge

    def publish_changes(self) -> None:
        self._bridge.publish_changes()

    def restart_bridge(self) -> None:
        self._bridge.restart()

    def disconnect_broker(self) -> None:
        self._bridge.is_connected = False
        for camera in self.cameras:
            camera.disconnect()

    def reconnect_broker(self) -> None:
        self._bridge.reconnect()

    def answer(self, camera: int, back: int) -> None:
        """Answer one of the device's requests, the last or an earlier one, maybe again."""
        requests = self.cameras[camera].requests
        if requests:
            self._answer(self.cameras[camera], requests[-1 - back % len(requests)])

    def answer_during_change(self, camera: int, change: Step) -> None:
        """Answer the device's last request while the registry changes."""
        requests = self.cameras[camera].requests
        if requests:
            self._answer(self.cameras[camera], requests[-1], change)

    def _answer(self, camera: Camera, request: Any, change: Step | None = None) -> None:
        setup = camera.setup
        interruption = (lambda: self._change(*change)) if change else None
        moments_before = len(self._moments)
        page = self._bridge.answer(
            setup.device_id, channels.SYNC_REQUEST.decode(request.to_json()), interruption
        )
        assert page.error is None
        moments = self._moments if self._may_be_late else self._moments[moments_before - 1 :]
        _check_upserts(page.upserts, setup, moments, may_name=setup.dev_mode)
        self._deliver(channels.SYNC_PAGE, page, device_id=setup.device_id)

    def _deliver(self, channel: Channel[Any], message: WireModel, **ids: str) -> None:
        """Check a message of the bridge and send it to the devices of its topic."""
        payload = message.to_json()
        assert len(payload) <= MAX_DOWN_BYTES
        if isinstance(message, SyncHead):
            self._heads[ids["site_id"]] = payload
        for camera in self.cameras:
            setup = camera.setup
            if setup.site == ids.get("site_id") or setup.device_id == ids.get("device_id"):
                if isinstance(message, SyncDelta):
                    _check_upserts(message.upserts, setup, self._moments[-1:], may_name=False)
                if camera.online:
                    camera.post(channel, payload)

    # Network and devices

    def deliver(self, camera: int, index: int) -> None:
        inbox = self.cameras[camera].inbox
        if inbox:
            self.cameras[camera].receive(inbox.pop(index % len(inbox)))

    def repeat(self, camera: int, index: int) -> None:
        inbox = self.cameras[camera].inbox
        if inbox:
            self.cameras[camera].receive(inbox[index % len(inbox)])

    def lose_message(self, camera: int, index: int) -> None:
        inbox = self.cameras[camera].inbox
        if inbox:
            inbox.pop(index % len(inbox))

    def deliver_all(self, camera: int) -> None:
        """Deliver all messages of a device in the order in which they were sent."""
        while inbox := self.cameras[camera].inbox:
            self.cameras[camera].receive(inbox.pop(0))

    def connect(self, camera: int) -> None:
        """Connect a device, or connect it again; the retained head arrives first."""
        device = self.cameras[camera]
        if self._bridge.is_connected:
            device.disconnect()
            device.connect()
            if device.setup.site in self._heads:
                device.post(channels.SYNC_HEAD, self._heads[device.setup.site])

    def restart(self, camera: int) -> None:
        self.cameras[camera].restart()

    def wait(self, seconds: float) -> None:
        self._clock.advance(seconds)
        for camera in self.cameras:
            camera.tick()

    def catch_up(self, camera: int) -> None:
        """Answer and deliver without interruption until the device requests nothing more."""
        device = self.cameras[camera]
        if not device.online:
            self.connect(camera)
        for _ in range(_ROUNDS):
            requests_before = len(device.requests)
            due = device.tick()
            self.deliver_all(camera)
            for request in device.requests[requests_before:]:
                self._answer(device, request)
            if not device.inbox and len(device.requests) == requests_before:
                if due is None or not device.online:
                    return
                self._clock.advance(max(0.0, due - self._clock()))
                self.pass_time()
        raise AssertionError(f"{device.setup.device_id} still sends requests after {_ROUNDS} rounds")

    def pass_time(self) -> None:
        """Do what the bridge does by itself while a device waits."""

    def settle(self) -> None:
        """Repair the network and deliver all messages to all devices."""
        self.reconnect_broker()
        self.publish_changes()
        for camera in range(len(self.cameras)):
            self.connect(camera)
        for camera in range(len(self.cameras)):
            self.catch_up(camera)

    # Invariants

    def check(self) -> None:
        """Check what must hold at every moment."""
        for camera in self.cameras:
            setup = camera.setup
            status = camera.sync.get_sync_status()
            assert status.counts.get("drift", 0) == 0, "a resync would hide the wrong decision"
            assert status.error is None
            invalid = camera.stored() - self._ever_valid[setup.site]
            assert not invalid, f"{setup.device_id} stores rows that were never valid there"
            stored = camera.gallery()
            rows = {
                (user, space, vector)
                for user, identity in stored.items()
                for _, space, vector in identity.rows
            }
            assert camera.recognised_rows() == rows, "memory and file differ"
            cursor = camera.db.cursor()
            if cursor and cursor.epoch == self.view.epoch:
                self._check_confirmed(camera, cursor.version, stored)

    def _check_confirmed(self, camera: Camera, version: int, stored: Any) -> None:
        """Compare each identity of which the device has confirmed the last change."""
        setup = camera.setup
        last_changes = self._last_changes[setup.site]
        expected = self.view.gallery(setup.site, frozenset(setup.spaces), with_names=setup.dev_mode)
        for user_id in stored.keys() | expected.keys():
            if last_changes.get(user_id, 0) <= version:
                assert stored.get(user_id) == expected.get(user_id), (
                    f"{setup.device_id}, {user_id} at {version}"
                )

    def check_equal(self) -> None:
        """Check that every gallery equals the registry, digest and version included."""
        self.check()
        for camera in self.cameras:
            setup = camera.setup
            expected = self.view.gallery(setup.site, frozenset(setup.spaces), with_names=setup.dev_mode)
            assert camera.gallery() == expected
            position = camera.sync.position()
            assert position is not None
            assert (position.epoch, position.version) == (self.view.epoch, self.view.head_version(setup.site))
            head = channels.SYNC_HEAD.decode(self._heads[setup.site])
            assert (head.epoch, head.version) == (position.epoch, position.version)
            assert head.spaces.keys() <= DIMENSIONS.keys()
            for space, digest in position.spaces.items():
                vectors = [
                    (user, vector)
                    for user, identity in expected.items()
                    for _, s, vector in identity.rows
                    if s == space
                ]
                recount = Digest()
                for user_id, vector in vectors:
                    recount = recount.plus(Digest.of(user_id, space, [vector]))
                assert (digest.count, digest.digest) == (recount.count, recount.hex)
                head_space = head.spaces.get(space)
                assert (
                    (head_space.count, head_space.digest) == (recount.count, recount.hex)
                    if head_space
                    else not vectors
                )
            assert camera.db.verify()
            last_applied = camera.applied[-1]
            assert (last_applied.epoch, last_applied.version, last_applied.spaces) == (
                position.epoch,
                position.version,
                position.spaces,
            )


def _check_upserts(
    upserts: Sequence[Upsert], setup: DeviceSetup, moments: Sequence[Moment], *, may_name: bool
) -> None:
    """Check that each upsert equals its identity at one moment of the read.

    It must be allowed at the site and by consent.
    """
    for upsert in upserts:
        assert upsert.display_name is None or may_name, "a name was sent to a device without dev mode"
        sent = {(template.template_id, template.space, template.vector) for template in upsert.templates}
        modalities = {(upsert.user_id, space.partition(":")[0]) for _, space, _ in sent}
        states = [(view.identities.get(upsert.user_id), refusals) for view, refusals in moments]
        assert any(
            identity is not None
            and identity.is_at(setup.site)
            and sent <= identity.rows
            and not modalities & refusals
            for identity, refusals in states
        ), f"{upsert.user_id} differs from the registry or may not be sent to {setup.site}"
