"""An erasure and its receipt: what was done, and when each device confirmed it. No I/O."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from broker_bridge.registry.devices.model import AppliedVersion
from broker_bridge.registry.identities.model import EVERY_SITE, Identity
from broker_bridge.registry.mongo.client import Document

# A character of a user id: next to one, a name that is found is a part of a longer one.
_OF_AN_ID = rb"[A-Za-z0-9_@-]"


@dataclass(frozen=True)
class ErasureSubject:
    """Whom an erasure is about, as long as its sweeps need it: user ids, names, keys of other systems."""

    user_ids: tuple[str, ...] = field(repr=False)
    texts: tuple[str, ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, user_ids: Iterable[str], people: Iterable[Identity]) -> "ErasureSubject":
        texts = set()
        for person in people:
            keys = (*person.external, *(person.merge.external if person.merge else ()))
            texts |= {person.display_name, *(key.external_id for key in keys)}
        return cls(tuple(sorted(user_ids)), tuple(sorted(text for text in texts if text)))

    def pattern(self) -> re.Pattern[bytes]:
        """Matches bytes of JSON or BSON in which one of them is named."""
        spellings = {text.encode() for text in (*self.user_ids, *self.texts)}
        spellings |= {json.dumps(text)[1:-1].encode() for text in self.texts}
        named = b"|".join(re.escape(one) for one in sorted(spellings, key=len, reverse=True))
        return re.compile(
            rb"(?<!" + _OF_AN_ID + rb")(?:" + named + rb")(?!" + _OF_AN_ID + rb"|\." + _OF_AN_ID + rb")"
        )


@dataclass(frozen=True)
class ErasureStep:
    """What was done in one place: how many documents, and when last."""

    count: int
    at: datetime


@dataclass(frozen=True)
class DeviceProof:
    """A device that may have held the person: `version` is what it has to reach, `confirmed_at` when it said
    that it has. `gone_at` is when it was found to be registered no more."""

    device_id: str
    site_id: str
    version: int
    confirmed_at: datetime | None = None
    gone_at: datetime | None = None

    @property
    def state(self) -> Literal["confirmed", "gone", "waiting"]:
        return "confirmed" if self.confirmed_at else "gone" if self.gone_at else "waiting"


@dataclass(frozen=True)
class Erasure:
    """An erasure as it stands. `version` is that of the newest tombstone, 0 if there was nobody any more."""

    erasure_id: str
    pseudonym: str
    requested_by: str
    requested_at: datetime
    version: int
    devices: tuple[DeviceProof, ...]
    steps: Mapping[str, ErasureStep]
    completed_at: datetime | None = None
    subject: ErasureSubject | None = field(default=None, repr=False)

    @property
    def state(self) -> Literal["open", "complete"]:
        return "complete" if self.completed_at else "open"

    @property
    def confirmed(self) -> int:
        return sum(device.state == "confirmed" for device in self.devices)

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do or to wait for."""
        return self.subject is None and all(device.state != "waiting" for device in self.devices)


def proofs_wanted(
    devices: Iterable[AppliedVersion], tombstones: Sequence[Identity]
) -> tuple[DeviceProof, ...]:
    """The devices of all sites that ever had one of the erased, each with the newest version that its site
    hears of."""
    wanted = []
    for device in devices:
        heard = [
            t.version for t in tombstones if EVERY_SITE in t.synced_sites or device.site_id in t.synced_sites
        ]
        if heard:
            wanted.append(DeviceProof(device.device_id, device.site_id, max(heard)))
    return tuple(wanted)


def to_document(erasure: Erasure, marks: Sequence[Any]) -> Document:
    """The document of an erasure that has just begun."""
    assert erasure.subject is not None  # noqa: S101  # a new one has all its work before it
    return {
        "_id": erasure.erasure_id,
        "pseudonym": erasure.pseudonym,
        "requested_by": erasure.requested_by,
        "requested_at": erasure.requested_at,
        "version": erasure.version,
        "marks": list(marks),
        "devices": [
            {"device_id": one.device_id, "site_id": one.site_id, "version": one.version}
            for one in erasure.devices
        ],
        "steps": {name: {"count": step.count, "at": step.at} for name, step in erasure.steps.items()},
        "completed_at": None,
        "subject": {"user_ids": list(erasure.subject.user_ids), "texts": list(erasure.subject.texts)},
    }


def from_document(found: Document) -> Erasure:
    subject = found.get("subject")
    return Erasure(
        erasure_id=found["_id"],
        pseudonym=found["pseudonym"],
        requested_by=found["requested_by"],
        requested_at=found["requested_at"],
        version=found["version"],
        devices=tuple(DeviceProof(**device) for device in found["devices"]),
        steps={name: ErasureStep(**step) for name, step in found["steps"].items()},
        completed_at=found["completed_at"],
        subject=ErasureSubject(tuple(subject["user_ids"]), tuple(subject["texts"])) if subject else None,
    )


def renamed(value: Any, pattern: re.Pattern[bytes], pseudonym: str) -> Any:
    """An open document in which a pseudonym stands wherever `pattern` matches a text."""
    if isinstance(value, str):
        return pattern.sub(pseudonym.encode(), value.encode()).decode()
    if isinstance(value, dict):
        return {
            renamed(key, pattern, pseudonym): renamed(child, pattern, pseudonym)
            for key, child in value.items()
        }
    if isinstance(value, list):
        return [renamed(child, pattern, pseudonym) for child in value]
    return value
