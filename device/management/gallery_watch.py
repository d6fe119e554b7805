"""Decide whether the gallery may be matched: it needs people, and limits that fit."""

from collections.abc import Callable

from broker_bridge.contract.errors import GALLERY_EMPTY, LIMITS_MISSING, THRESHOLDS_UNSUITED
from device.enrollment.gallery_rows import GalleryRows
from device.events import decision
from device.recognition.gallery_pairs import GalleryPairs, compare_pairs
from device.recognition.limits import LimitsInUse, SourcedLimits

from .health import Health
from .spaces_on_record import SpacesOnRecord

# A larger gallery is compared again when it has changed by a tenth: its sample costs some milliseconds.
_ALWAYS_COMPARED = 100
_CHANGE = 0.1


class GalleryWatch:
    """The reasons in gallery and limits for which no face may be matched.

    `gallery-empty`: the site has people and none of them is enrolled in the device's space, so that every
    face would be unknown. `limits-missing`: no limits are known for the space. `thresholds-unsuited`: the
    gallery shows that the limits do not fit the model. The methods are for the thread that changes the
    gallery, `suppressed_reason` for any.
    """

    def __init__(self, space: str, limits: LimitsInUse, health: Health) -> None:
        self._space = space
        self._limits = limits
        self._health = health
        self._rows: GalleryRows | None = None
        self._people: int | None = None
        self._people_in_space: int | None = None
        self._is_unsuited = False
        self._is_empty = False
        self._compared: tuple[float, int] | None = None
        self._report_limits()

    def suppressed_reason(self) -> str | None:
        """Return why no face may be matched now, if there is a reason."""
        if self._limits.current is None:
            return decision.LIMITS_MISSING
        if self._is_unsuited:
            return decision.THRESHOLDS_UNSUITED
        return decision.GALLERY_EMPTY if self._is_empty else None

    def follow_records(self, records: SpacesOnRecord) -> None:
        """Use what the registry says of the space and of its people."""
        record = records.record(self._space)
        self._people, self._people_in_space = records.people, record.people
        self._report_empty()
        unsuited = self._find_unsuited(self._rows, self._limits.select(record.limits))
        if unsuited:
            self._report_unsuited(unsuited)
        self._limits.follow_registry(record.limits)
        self._report_limits()
        if unsuited is None:
            self._report_unsuited(None)

    def follow_gallery(self, rows: GalleryRows, swap: Callable[[], None]) -> None:
        """Call `swap`, which puts `rows` in use.

        A problem is reported before, and cleared after that.
        """
        unsuited = self._find_unsuited(rows, self._limits.current)
        if unsuited:
            self._report_unsuited(unsuited)
        self._rows = rows
        swap()
        self._report_empty()
        if unsuited is None:
            self._report_unsuited(None)

    def _find_unsuited(self, rows: GalleryRows | None, limits: SourcedLimits | None) -> str | None:
        if rows is None or limits is None:
            return None
        size = len(rows.user_ids)
        distance = limits.match.distance
        if self._compared is not None and not self._is_unsuited and size > _ALWAYS_COMPARED:
            same_limits, compared_size = self._compared[0] == distance, self._compared[1]
            if same_limits and abs(size - compared_size) < _CHANGE * compared_size:
                return None
        self._compared = (distance, size)
        pairs = compare_pairs(rows.user_ids, rows.vectors, distance)
        return describe_unsuited(self._space, pairs, limits) if pairs.is_too_many else None

    def _report_unsuited(self, sentence: str | None) -> None:
        if sentence is None:
            self._is_unsuited = False
            self._health.clear(THRESHOLDS_UNSUITED)
        else:
            self._is_unsuited = True
            self._health.report(THRESHOLDS_UNSUITED, sentence)

    def _report_limits(self) -> None:
        if self._limits.current is None:
            self._health.report(LIMITS_MISSING, describe_missing(self._space))
        else:
            self._health.clear(LIMITS_MISSING)

    def _report_empty(self) -> None:
        has_rows = self._rows is not None and len(self._rows.user_ids) > 0
        self._is_empty = bool(self._people) and not self._people_in_space and not has_rows
        if not self._is_empty:
            self._health.clear(GALLERY_EMPTY)
            return
        self._health.report(GALLERY_EMPTY, describe_empty(self._space, self._people or 0))


def describe_empty(space: str, people: int) -> str:
    """Return the sentence for a space that none of the site's `people` is enrolled in."""
    return (
        f"0 of {people} people are enrolled in {space}, so no face is matched and none is called unknown: "
        "enroll them in this space (`wfm-fleet model migrate`), or give this device the model that they are "
        "enrolled with"
    )


def describe_missing(space: str) -> str:
    """Return the sentence for a space without limits."""
    return (
        f"no limits are known for {space}, so no face is matched: measure them with `wfm-fleet model "
        "calibrate`, write them into the registry's record or the JSON beside the model, or set "
        "device.thresholds"
    )


def describe_unsuited(space: str, pairs: GalleryPairs, limits: SourcedLimits) -> str:
    """Return the sentence for limits that do not keep people apart."""
    return (
        f"{pairs.within} of {pairs.pairs} pairs of different people in {space} ({pairs.share:.0%}) lie "
        f"within the match distance {limits.match.distance:g} ({limits.source}), so the limits do not fit "
        "the model and no face is matched: measure them with `wfm-fleet model calibrate`, and correct the "
        "record of the space or device.thresholds"
    )
