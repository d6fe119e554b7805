"""Follow the registry's records of spaces, which come with a site's head."""

from collections.abc import Callable, Mapping
from typing import Any

from broker_bridge.contract import channels
from broker_bridge.contract.channels import Decoded
from broker_bridge.contract.messages import SpaceInfo, SyncHead
from device.mqtt.link import SessionListener
from device.store.db_manager import DatabaseManager

from .health import Health
from .space_problems import DIFFERENCES, SpaceOnRecord, find_differences

_SPACE_KEY = "space_on_record:"
_PEOPLE_KEY = "people_at_site"
# The key of software that stored the hash alone.
_HASH_KEY = "model_on_record:"

ReadConfig = Callable[[str], str | None]


def stored_record(read: ReadConfig, space: str) -> SpaceOnRecord:
    """Return the stored record of `space`; `read` returns a value of `device_config`."""
    text = read(_SPACE_KEY + space)
    if text is None:
        return SpaceOnRecord(model_sha256=read(_HASH_KEY + space))
    return SpaceOnRecord.of_text(text)


def stored_people(read: ReadConfig) -> int | None:
    """Return the people that the last head counted at the site, if it did."""
    text = read(_PEOPLE_KEY)
    return int(text) if text and text.isdecimal() else None


class SpacesOnRecord(SessionListener):
    """The registry's records of the spaces that the device has a model of.

    Vectors of two model files, or of faces that are prepared in two ways, do not compare, even under one
    name. A device with another model or preparation than the record's reports it and is in quarantine until
    one of them is changed. The records are stored, so that a device that starts offline has them too, with
    the limits. `on_change` is called at the start and after every change.
    """

    def __init__(
        self,
        db: DatabaseManager,
        health: Health,
        spaces: Mapping[str, SpaceInfo],
        on_change: Callable[["SpacesOnRecord"], None] = lambda _records: None,
    ) -> None:
        self._db = db
        self._health = health
        self._own = {space: info for space, info in spaces.items() if info.model_sha256}
        self._on_change = on_change
        self._records = {space: stored_record(db.get_config, space) for space in self._own}
        self._people = stored_people(db.get_config)
        self._report_differences()
        on_change(self)

    @property
    def people(self) -> int | None:
        """How many people the site has, None if the registry does not say."""
        return self._people

    def record(self, space: str) -> SpaceOnRecord:
        return self._records.get(space) or SpaceOnRecord()

    def _report_differences(self) -> None:
        found = find_differences(self._own, self._records)
        for code in DIFFERENCES:
            if code in found:
                self._health.report(code, found[code])
            else:
                self._health.clear(code)

    def receive_message(self, decoded: Decoded[Any]) -> None:
        if decoded.channel is channels.SYNC_HEAD:
            self._follow_head(decoded.message)

    def _follow_head(self, head: SyncHead) -> None:
        changed = {}
        for space in self._own:
            # A head names every space that has a record: another one was removed.
            told = head.spaces.get(space)
            record = SpaceOnRecord.of_head(told) if told else SpaceOnRecord(people=0)
            if record != self._records[space]:
                changed[space] = record
        if not changed and head.people == self._people:
            return
        # In effect before it is stored: a full disk must not keep the device from its quarantine.
        self._records.update(changed)
        people, self._people = self._people, head.people
        self._report_differences()
        self._on_change(self)
        for space, record in changed.items():
            self._db.set_config(_SPACE_KEY + space, record.to_json().decode())
        if people != head.people:
            self._db.set_config(_PEOPLE_KEY, "" if head.people is None else str(head.people))
