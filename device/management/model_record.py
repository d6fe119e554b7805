"""Compares a device's model files with those that the registry has on record for the same spaces."""

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
"""Prefix of the key in `device_config` under which a space's record is remembered."""


class ModelRecord(SessionListener):
    """Vectors of two model files do not compare, even under one name: a device whose file differs from the
    record reports `model-differs` and is in quarantine until either is changed.

    The record comes with a site's head and is remembered, so that a device that starts offline knows it too.
    Part of the link: see `SessionListener`.
    """

    def __init__(self, db: DatabaseManager, health: Health, spaces: Mapping[str, SpaceInfo]) -> None:
        self._db = db
        self._health = health
        self._own = {space: info.model_sha256 for space, info in spaces.items() if info.model_sha256}
        remembered = {space: db.get_config(RECORD_KEY + space) for space in self._own}
        self._record = {space: sha256 for space, sha256 in remembered.items() if sha256}
        self._judge()

    def _judge(self) -> None:
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
            f"{self._record[space][:12]}... on record: nobody is recognised until this device has that file "
            "or a space of its own",
        )

    def receive_message(self, decoded: Decoded[Any]) -> None:
        if decoded.channel is channels.SYNC_HEAD:
            self._take(decoded.message)

    def _take(self, head: SyncHead) -> None:
        told = {space: one.model_sha256 for space, one in head.spaces.items() if space in self._own}
        news = {s: sha256 for s, sha256 in told.items() if sha256 and sha256 != self._record.get(s)}
        if not news:
            return
        # Judged first: a disk that is full must not keep the device from its quarantine.
        self._record.update(news)
        self._judge()
        for space, sha256 in news.items():
            self._db.set_config(RECORD_KEY + space, sha256)
