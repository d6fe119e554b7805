"""Define an erasure and its receipt.

No I/O.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from broker_bridge.registry.devices.model import AppliedVersion
from broker_bridge.registry.identities.model import EVERY_SITE, Identity
from broker_bridge.registry.mongo.client import Document

# A character of a user id: a match next to one is a part of a longer id.
_ID_CHARACTER = rb"[A-Za-z0-9_@-]"


@dataclass(frozen=True)
class ErasureSubject:
    """Ids, names and external keys of the erased person.

    They are kept as long as sweeps need them.
    """

    user_ids: tuple[str, ...] = field(repr=False)
    texts: tuple[str, ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, user_ids: Iterable[str], identities: Iterable[Identity]) -> "ErasureSubject":
        texts = set()
        for identity in identities:
            keys = (*identity.external, *(identity.merge.external if identity.merge else ()))
            texts |= {identity.display_name, *(key.external_id for key in keys)}
        return cls(tuple(sorted(user_ids)), tuple(sorted(text for text in texts if text)))

    def pattern(self) -> re.Pattern[bytes]:
        """Return a pattern for bytes of JSON or BSON that have one of the ids or texts."""
        spellings = {text.encode() for text in (*self.user_ids, *self.texts)}
        spellings |= {json.dumps(text)[1:-1].encode() for text in self.texts}
        named = b"|".join(re.escape(one) for one in sorted(spellings, key=len, reverse=True))
        return re.compile(
            rb"(?<!"
            + _ID_CHARACTER
            + rb")(?:"
            + named
            + rb")(?!"
            + _ID_CHARACTER
            + rb"|\."
            + _ID_CHARACTER
            + rb")"
        )


@dataclass(frozen=True)
class ErasureStep:
    """Number of documents that a step has changed, and when it last did."""

    count: int
    at: datetime


@dataclass(frozen=True)
class DeviceProof:
    """A device that may hold data of the erased person.

    It has to reach `version`, and confirmed that at `confirmed_at`. Once moved, it has to confirm any version
    at its new site: that is after the snapshot sync that replaces its gallery. At `gone_at` the device was
    found to be registered no more.
    """

    device_id: str
    site_id: str
    version: int
    confirmed_at: datetime | None = None
    gone_at: datetime | None = None

    @property
    def state(self) -> Literal["confirmed", "gone", "waiting"]:
        return "confirmed" if self.confirmed_at else "gone" if self.gone_at else "waiting"

    def is_fulfilled_by(self, applied: AppliedVersion, epoch: str) -> bool:
        """Return whether the device has applied the change.

        `epoch` is the current history.
        """
        return applied.confirms(epoch, self.version if applied.site_id == self.site_id else 0)


@dataclass(frozen=True)
class Erasure:
    """An erasure as of now.

    `version` is that of the newest tombstone, 0 if the identity was purged before.
    """

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
        """Whether all sweeps are done and no device is waited for."""
        return self.subject is None and all(device.state != "waiting" for device in self.devices)


def required_proofs(
    devices: Iterable[AppliedVersion], tombstones: Sequence[Identity]
) -> tuple[DeviceProof, ...]:
    """Return the devices that have to confirm an erasure.

    These are the devices of all synced sites, each with the newest version that its site receives. `devices`
    of other sites have come from one of these.
    """
    proofs = []
    for device in devices:
        versions = [
            t.version for t in tombstones if EVERY_SITE in t.synced_sites or device.site_id in t.synced_sites
        ]
        proofs.append(DeviceProof(device.device_id, device.site_id, max(versions, default=0)))
    return tuple(proofs)


def to_document(erasure: Erasure, marks: Sequence[Any]) -> Document:
    """Return the document of a new erasure."""
    assert erasure.subject is not None  # noqa: S101  # a new erasure still has its subject
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


def replace_names(value: Any, pattern: re.Pattern[bytes], pseudonym: str) -> Any:
    """Return `value` with the pseudonym in place of every match.

    Keys are searched too.
    """
    if isinstance(value, str):
        return pattern.sub(pseudonym.encode(), value.encode()).decode()
    if isinstance(value, dict):
        return {
            replace_names(key, pattern, pseudonym): replace_names(child, pattern, pseudonym)
            for key, child in value.items()
        }
    if isinstance(value, list):
        return [replace_names(child, pattern, pseudonym) for child in value]
    return value
