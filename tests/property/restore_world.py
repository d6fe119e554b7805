"""Play restores of a backup that no program is told of.

Devices confirm what they have, and some of them poll.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from broker_bridge.common.clock import utc_now
from broker_bridge.contract import channels
from broker_bridge.contract.channels import Decoded
from broker_bridge.devices.presence import Presence
from broker_bridge.registry.identities.model import EnrollIdentity
from broker_bridge.registry.mongo.client import Document
from broker_bridge.registry.mongo.schema import ensure_indexes
from broker_bridge.settings import BridgeSettings

from .conftest import Stage
from .polling_device import PollingDevice
from .sync_camera import Camera
from .sync_steps import DIMENSIONS, USERS, Step, sample
from .sync_world import SETUPS, SyncWorld

_BACKED_UP = ("identities", "templates", "meta", "devices")
# The number of epochs that begin until all is settled, at most: each camera may begin one.
_ROUNDS = 8

Backup = dict[str, list[Document]]
Faces = dict[str, frozenset[tuple[str, bytes]]]

_cameras = st.integers(0, len(SETUPS) - 1)
_pollers = st.integers(0, 2)
_users = st.sampled_from(USERS)
_changes: list[st.SearchStrategy[Step]] = [
    st.tuples(st.just("enroll"), _users, st.integers(0, 9)),
    st.tuples(st.just("enroll"), _users, st.integers(0, 9)),
    st.tuples(st.just("delete"), _users),
    st.tuples(st.just("purge"), st.integers(1, 4)),
]
_backups: list[st.SearchStrategy[Step]] = [
    st.tuples(st.just("back_up")),
    st.tuples(st.just("restore_backup")),
    st.tuples(st.just("restore_backup")),
    st.tuples(st.just("restore_with_drop")),
]
_faults: list[st.SearchStrategy[Step]] = [
    st.tuples(st.just("jump"), _cameras, st.sampled_from([-1e9, -3600.0, 3600.0, 1e8])),
    st.tuples(st.just("replace_collection"), st.sampled_from(["identities", "templates", "sites", "events"])),
    st.tuples(st.just("restart_bridge")),
    st.tuples(st.just("restart_api")),
    st.tuples(st.just("restart_programs")),
    st.tuples(st.just("restart"), _cameras),
    st.tuples(st.just("disconnect_broker")),
    st.tuples(st.just("reconnect_broker")),
    st.tuples(st.just("wait"), st.sampled_from([0.1, 1.0, 30.0])),
]
_devices: list[st.SearchStrategy[Step]] = [
    st.tuples(st.just("publish_changes")),
    st.tuples(st.just("publish_changes")),
    st.tuples(st.just("connect"), _cameras),
    st.tuples(st.just("disconnect"), _cameras),
    st.tuples(st.just("catch_up"), _cameras),
    st.tuples(st.just("deliver_all"), _cameras),
    st.tuples(st.just("lose_message"), _cameras, st.integers(0, 3)),
    st.tuples(st.just("report"), _cameras),
    st.tuples(st.just("report"), _cameras),
    st.tuples(st.just("poll"), _pollers),
    st.tuples(st.just("poll"), _pollers),
    st.tuples(st.just("confirm"), _pollers),
]
_step = st.one_of(*(st.one_of(kind) for kind in (_changes, _backups, _faults, _devices, _devices)))
restore_steps = st.integers(4, 30).flatmap(lambda length: st.lists(_step, min_size=length, max_size=length))


class RestoreWorld(SyncWorld):
    """A SyncWorld whose registry is restored while no program knows of it.

    The devices' reports reach the registry, and pollers share its sites.
    """

    def __init__(self, stage: Stage, folder: Path) -> None:
        super().__init__(stage.registry, stage.loop, folder, stage.empty)
        self._dump: Backup | None = None
        self._restored_reports: Mapping[str, Document | None] = {}
        self._retained: dict[str, Any] = {}
        self._pollers = [
            PollingDevice("poll-001", "lobby", with_epoch=True),
            PollingDevice("poll-002", "lobby", with_epoch=False),
            PollingDevice("poll-003", "gate", with_epoch=True),
        ]
        self._run(self._forget_devices())
        self.restart_api()
        self._presence = self._new_presence()

    async def _forget_devices(self) -> None:
        for poller in self._pollers:
            await self._registry.devices.register(poller.device_id, poller.site)
        await self._registry.mongo.db.devices.update_many({}, {"$unset": {"applied": 1, "polled": 1}})

    def _new_presence(self) -> Presence:
        return Presence(self._registry, BridgeSettings(), utc_now, judge=self._bridge.judge)

    # The registry

    def enroll(self, user_id: str, seed: int) -> None:
        templates = tuple(sample(space, seed) for space in DIMENSIONS)
        self.apply_changes([EnrollIdentity(user_id, templates=templates, replace_modality="face")])

    def delete(self, user_id: str) -> None:
        self._run(self._change("delete", user_id))

    def back_up(self) -> None:
        self._dump = self._run(self._read_all())

    async def _read_all(self) -> Backup:
        return {name: await self._registry.mongo.db[name].find().to_list(None) for name in _BACKED_UP}

    def restore_backup(self) -> None:
        """Restore the backup at once; the programs run, and are told nothing."""
        if self._dump is None:
            return
        dump = self._dump

        async def work(session: Any) -> None:
            for name, documents in dump.items():
                await self._registry.mongo.db[name].delete_many({}, session=session)
                await self._registry.mongo.db[name].insert_many(documents, session=session)

        self._run(
            self._registry.mongo.transact(work) if all(dump.values()) else self._restore_with_drop(dump)
        )
        self._note_restore(dump)

    def restore_with_drop(self) -> None:
        """Restore as `mongorestore --drop` does: one collection after the other."""
        if self._dump is not None:
            self._run(self._restore_with_drop(self._dump))
            self._note_restore(self._dump)

    async def _restore_with_drop(self, dump: Backup) -> None:
        for name, documents in dump.items():
            await self._registry.mongo.db[name].drop()
            if documents:
                await self._registry.mongo.db[name].insert_many(documents)
        await ensure_indexes(self._registry.mongo, None)

    def _note_restore(self, dump: Backup) -> None:
        self._restored_reports = {found["_id"]: found.get("applied") for found in dump["devices"]}
        self._refresh()

    def replace_collection(self, name: str) -> None:
        """Rename a collection that is followed, and rename it back."""
        self._run(self._replace_collection(name))

    async def _replace_collection(self, name: str) -> None:
        collection = self._registry.mongo.db[name]
        await collection.rename(f"{name}_away")
        await self._registry.mongo.db[f"{name}_away"].rename(name)

    # Programs and devices

    def restart_bridge(self) -> None:
        """Replace the bridge; the broker sends it the reports that it keeps."""
        super().restart_bridge()
        self._presence = self._new_presence()
        for device_id, message in self._retained.items():
            self._accept(device_id, message)
        self._write_reports()

    def restart_api(self) -> None:
        """Let the API forget what it has seen, as a new process has."""
        polling: Any = self._registry.edge_polling
        polling._guard._seen = None

    def restart_programs(self) -> None:
        """Restart all programs, as an operator does who forgets the epoch."""
        self.restart_api()
        self.restart_bridge()

    def jump(self, camera: int, seconds: float) -> None:
        """Set the clock of a device."""
        self.cameras[camera].clock_offset += timedelta(seconds=seconds)
        self.cameras[camera].clock_offset %= timedelta(days=20_000)

    def disconnect(self, camera: int) -> None:
        self.cameras[camera].disconnect()

    def report(self, camera: int) -> None:
        """Deliver a device's newest confirmation."""
        device = self.cameras[camera]
        if self._bridge.is_connected and device.applied:
            self._retained[device.setup.device_id] = device.applied[-1]
            self._accept(device.setup.device_id, device.applied[-1])
            self._write_reports()

    def _accept(self, device_id: str, message: Any) -> None:
        self._presence.accept_report(Decoded(channels.SYNC_APPLIED, {"device_id": device_id}, message), b"")

    def _write_reports(self) -> None:
        self._presence.judge_again()
        self._run(self._presence._write_waiting())

    def poll(self, poller: int) -> None:
        self._run(self._pollers[poller].poll(self._registry))

    def confirm(self, poller: int) -> None:
        self._run(self._pollers[poller].confirm(self._registry))

    def pass_time(self) -> None:
        """Let the publisher read the registry.

        A restored one contradicts the head until then.
        """
        self.publish_changes()

    def settle(self) -> None:
        """Repair the network and let every device sync until no further epoch begins."""
        for _ in range(_ROUNDS):
            self._refresh()
            epoch = self.view.epoch
            super().settle()
            for camera in range(len(self.cameras)):
                self.report(camera)
            for poller in range(len(self._pollers)):
                self.poll(poller)
                self.confirm(poller)
            self._refresh()
            if self.view.epoch == epoch:
                return
        raise AssertionError("further epochs begin")

    # Invariants

    def check(self) -> None:
        """No confirmation of a deletion is untrue, except those that came with a backup."""
        self._refresh()
        removed = {
            key: identity.version for key, identity in self.view.identities.items() if identity.deleted
        }
        stored = {camera.setup.device_id: _faces(camera) for camera in self.cameras}
        stored |= {poller.device_id: poller.faces for poller in self._pollers}
        reports = self._run(self._reports())
        for device in self._run(self._registry.devices.applied_versions()):
            came_with_backup = reports[device.device_id] == self._restored_reports.get(device.device_id, {})
            if came_with_backup or device.device_id not in stored:
                continue
            for user_id, version in removed.items():
                assert not (device.confirms(self.view.epoch, version) and user_id in stored[device.device_id])

    async def _reports(self) -> dict[str, Document | None]:
        found = await self._registry.mongo.db.devices.find({}, {"applied": 1}).to_list(None)
        return {document["_id"]: document.get("applied") for document in found}

    def check_equal(self) -> None:
        """Every device has the registry's faces, and the cameras its epoch."""
        self.check()
        for camera in self.cameras:
            expected = self._expected(camera.setup.site, list(camera.setup.spaces))
            assert _faces(camera) == expected, camera.setup.device_id
            position = camera.sync.position()
            assert position is not None
            assert position.epoch == self.view.epoch
        for poller in self._pollers:
            assert poller.faces == self._expected(poller.site, list(DIMENSIONS)), poller.device_id

    def _expected(self, site: str, spaces: Sequence[str]) -> Faces:
        gallery = self.view.gallery(site, frozenset(spaces), with_names=False)
        return {
            user_id: frozenset((space, vector) for _, space, vector in identity.rows)
            for user_id, identity in gallery.items()
        }


def _faces(camera: Camera) -> Faces:
    return {
        user_id: frozenset((space, vector) for _, space, vector in identity.rows)
        for user_id, identity in camera.gallery().items()
    }
