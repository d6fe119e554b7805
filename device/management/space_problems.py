"""Compare the device's spaces with the registry's records of them."""

from collections.abc import Mapping
from typing import Final

from pydantic import ValidationError

from broker_bridge.contract.errors import MODEL_DIFFERS, PREPARATION_DIFFERS, SPACE_MISMATCH
from broker_bridge.contract.messages import SpaceHead, SpaceInfo
from broker_bridge.contract.messages.fields import Count
from broker_bridge.contract.spaces import Alignment, DetectorName, Dimension, SpaceLimits
from broker_bridge.contract.wire import Sha256, WireModel

DIFFERENCES: Final = (MODEL_DIFFERS, SPACE_MISMATCH, PREPARATION_DIFFERS)
"""The codes of differences that make vectors incomparable."""


class SpaceOnRecord(WireModel):
    """The registry's record of a space.

    `people` counts the people of the site that have a template in it.
    """

    model_sha256: Sha256 | None = None
    dimension: Dimension | None = None
    detector: DetectorName | None = None
    alignment: Alignment | None = None
    limits: SpaceLimits | None = None
    people: Count | None = None

    @classmethod
    def of_head(cls, space: SpaceHead) -> "SpaceOnRecord":
        return cls.model_validate(space.model_dump(include=set(cls.model_fields)))

    @classmethod
    def of_text(cls, text: str | None) -> "SpaceOnRecord":
        """Return the stored record; an unreadable one counts as none."""
        try:
            return cls.model_validate_json(text or "{}")
        except ValidationError:
            return cls()


def find_differences(own: Mapping[str, SpaceInfo], recorded: Mapping[str, SpaceOnRecord]) -> dict[str, str]:
    """Return a sentence for each code of DIFFERENCES that holds."""
    found: dict[str, str] = {}
    for space in sorted(own.keys() & recorded.keys()):
        for code, sentence in _compare(space, own[space], recorded[space]):
            found.setdefault(code, sentence)
    return found


def _compare(space: str, own: SpaceInfo, recorded: SpaceOnRecord) -> list[tuple[str, str]]:
    found = []
    if own.model_sha256 and recorded.model_sha256 not in (None, own.model_sha256):
        sentence = (
            f"the model file for {space} is {own.model_sha256[:12]}..., the registry has "
            f"{str(recorded.model_sha256)[:12]}... on record: recognition stops until this device has that "
            "file or a space of its own"
        )
        found.append((MODEL_DIFFERS, sentence))
    if recorded.dimension not in (None, own.dimension):
        sentence = (
            f"this device makes vectors of {own.dimension} numbers for {space}, the registry has "
            f"{recorded.dimension} on record: recognition stops until this device has the model on record or "
            "a space of its own"
        )
        found.append((SPACE_MISMATCH, sentence))
    prepared = [
        f"{name} {ours}, on record {theirs}"
        for name, ours, theirs in (
            ("detector", own.detector, recorded.detector),
            ("alignment", own.alignment, recorded.alignment),
        )
        if ours and theirs and ours != theirs
    ]
    if prepared:
        sentence = (
            f"this device prepares the faces of {space} otherwise than the enrollment "
            f"({'; '.join(prepared)}), so its vectors do not compare: recognition stops until this device's "
            "record and settings name the detector and alignment on record, or the registry's record is "
            "corrected"
        )
        found.append((PREPARATION_DIFFERS, sentence))
    return found
