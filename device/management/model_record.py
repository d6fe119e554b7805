"""Compare the device's model files with the registry's record for the same spaces."""

from collections.abc import Mapping
from typing import Any

from broker_bridge.contract import channels
from broker_bridge.contract.channels import Decoded
from broker_bridge.contract.errors import MODEL_DIFFERS
from broker_bridge.contract.messages import SpaceInfo, SyncHead
from device.mqtt.link import SessionListener
from device.store.db_manager import DatabaseManager

from .health import Health

RECORD_KEY = "model_on_record:"
"""Prefix of the key in `device_config` under which a space's record is stored."""


class ModelRecord(SessionListener):
    """The registry's record of the model file of each space of the device.

    Vectors of two model files do not compare, even under one name. A device with another file than the
    record's reports `model-differs` and is in quarantine until file or record is changed. The record
    comes with a site's head; it is stored, so that a device that starts offline has it too.
    """

    def __init__(self, db: DatabaseManager, health: Health, spaces: Mapping[str, SpaceInfo]) -> None:
        self._db = db
        self._health = health
        self._own = {space: info.model_sha256 for space, info in spaces.items() if info.model_sha256}
        stored = {space: db.get_config(RECORD_KEY + space) for space in self._own}
        self._record = {space: sha256 for space, sha256 in stored.items() if sha256}
        self._report_difference()

    def _report_difference(self) -> None:
        differing = sorted(
            space for space, sha256 in self._record.items() if sha256 != self._own.get(space, sha256)
        )
        if not differing:
            self._health.clear(MODEL_DIFFERS)
            return
        space = differing[0]
        self._health.report(
            MODEL_DIFFERS,
            f"the model file for {space} is {self._own[space][:12]}..., the registry has "
            f"{self._record[space][:12]}... on record: recognition stops until this device has that file "
            "or a space of its own",
        )

    def receive_message(self, decoded: Decoded[Any]) -> None:
        if decoded.channel is channels.SYNC_HEAD:
            self._update_record(decoded.message)

    def _update_record(self, head: SyncHead) -> None:
        published = {space: info.model_sha256 for space, info in head.spaces.items() if space in self._own}
        changed = {
            space: sha256
            for space, sha256 in published.items()
            if sha256 and sha256 != self._record.get(space)
        }
        if not changed:
            return
        # Reported before it is stored: a full disk must not keep the device from its quarantine.
        self._record.update(changed)
        self._report_difference()
        for space, sha256 in changed.items():
            self._db.set_config(RECORD_KEY + space, sha256)
