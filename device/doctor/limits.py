"""Check the limits of the camera's space, with the gallery on the disk."""

from pydantic import JsonValue

from broker_bridge.contract.errors import GALLERY_EMPTY, LIMITS_MISSING, THRESHOLDS_UNSUITED
from device.enrollment.gallery_rows import GalleryRows
from device.management.gallery_watch import describe_empty, describe_missing, describe_unsuited
from device.management.space_problems import SpaceOnRecord
from device.recognition.gallery_pairs import compare_pairs
from device.recognition.limits import LimitsInUse

from .check import CheckResult

_CALIBRATE = "measure the limits of this model: `wfm-fleet model calibrate`"


def check_limits(
    limits: LimitsInUse, rows: GalleryRows, on_record: SpaceOnRecord, people: int | None
) -> CheckResult:
    """Tell the limits and their source, and whether the gallery fits them.

    `on_record` is the registry's record of the space, `people` how many people the site has.
    """
    limits.follow_registry(on_record.limits)
    current = limits.current
    if current is None:
        detail = f"{LIMITS_MISSING}: {describe_missing(rows.space)}"
        return CheckResult("limits", "fault", detail, _CALIBRATE, {"source": None})
    pairs = compare_pairs(rows.user_ids, rows.vectors, current.match.distance)
    values: dict[str, JsonValue] = {
        "distance": current.match.distance,
        "margin": current.match.margin,
        "source": current.source,
        "people": len(set(rows.user_ids)),
        "pairs": pairs.pairs,
        "pairs_within": pairs.within,
    }
    if pairs.is_too_many:
        detail = f"{THRESHOLDS_UNSUITED}: {describe_unsuited(rows.space, pairs, current)}"
        return CheckResult("limits", "fault", detail, _CALIBRATE, values)
    if people and not on_record.people and not len(rows.user_ids):
        detail = f"{GALLERY_EMPTY}: {describe_empty(rows.space, people)}"
        return CheckResult("limits", "fault", detail, "enroll the people in this space", values)
    detail = (
        f"distance {current.match.distance:g}, margin {current.match.margin:g}, {current.source}; "
        f"{pairs.within} of {pairs.pairs} pairs of different people lie within the distance"
    )
    return CheckResult("limits", "ok", detail, None, values)
