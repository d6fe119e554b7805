"""The reasons in gallery and limits for which no face is matched."""

from types import SimpleNamespace

import numpy as np
import pytest

from broker_bridge.contract.spaces import SpaceLimits
from device.enrollment.gallery_rows import GalleryRows
from device.events.match_limits import MatchLimits
from device.management import gallery_watch
from device.management.gallery_watch import GalleryWatch
from device.management.health import Health
from device.management.space_problems import SpaceOnRecord
from device.recognition.limits import LimitsInUse
from tests.networks import LIMITS

SPACE = "face:test-8"
UNFIT = LIMITS.model_copy(update={"distance": 2.0})


def rows(people: int, version: int = 1) -> GalleryRows:
    vectors = np.random.default_rng(5).normal(size=(people, 64)).astype(np.float32)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True) if people else vectors
    return GalleryRows(SPACE, 64, [f"EMP-{n}" for n in range(people)], unit, version)


def records(people: int | None = 1, **record: object):
    """Return what the registry says."""
    return SimpleNamespace(people=people, record=lambda _space: SpaceOnRecord.model_validate(record))


def watch_with(shipped: SpaceLimits | None = LIMITS, own: MatchLimits | None = None):
    health = Health()
    limits = LimitsInUse(own, shipped)
    return GalleryWatch(SPACE, limits, health), health, limits


def codes(health: Health) -> list[str]:
    return [problem.code for problem in health.problems()]


def test_unfit_limits_are_reported_before_the_gallery_is_used() -> None:
    """They are cleared after the swap of a gallery that fits."""
    watch, health, _ = watch_with(UNFIT)
    seen = []
    watch.follow_gallery(rows(5), lambda: seen.append(codes(health)))
    assert (seen, watch.suppressed_reason()) == ([["thresholds-unsuited"]], "thresholds_unsuited")
    watch.follow_gallery(rows(1), lambda: seen.append(codes(health)))
    assert (seen[1:], codes(health)) == ([["thresholds-unsuited"]], [])
    assert watch.suppressed_reason() is None


def test_limits_of_a_head_are_judged_before_they_are_used() -> None:
    """The gallery is that in use."""
    watch, health, limits = watch_with()
    watch.follow_gallery(rows(5), lambda: None)
    watch.follow_records(records(people=5, limits=UNFIT.model_dump()))
    assert codes(health) == ["thresholds-unsuited"]
    assert limits.match_limits() == MatchLimits(2.0, 0.0)
    watch.follow_records(records(people=5))
    assert (codes(health), limits.match_limits()) == ([], MatchLimits(0.35, 0.0))


def test_a_large_gallery_is_compared_again_when_it_has_changed_by_a_tenth(monkeypatch) -> None:
    """A stream of deltas costs no comparison each."""
    sizes = []
    compare = gallery_watch.compare_pairs

    def counted(user_ids, vectors, distance):
        sizes.append(len(user_ids))
        return compare(user_ids, vectors, distance)

    monkeypatch.setattr(gallery_watch, "compare_pairs", counted)
    watch, _, _ = watch_with()
    for size in range(400, 500):
        watch.follow_gallery(rows(size), lambda: None)
    assert sizes == [400, 440, 484]
    watch.follow_records(records(limits=UNFIT.model_dump()))
    assert sizes[3:] == [499]


@pytest.mark.parametrize(
    ("people", "in_space", "enrolled", "empty"),
    [
        (17, 0, 0, True),
        (17, None, 0, True),
        (1, 0, 0, True),
        (0, 0, 0, False),
        (None, None, 0, False),
        (17, 3, 0, False),
        (17, 0, 2, False),
    ],
)
def test_a_space_without_the_people_of_its_site_is_empty(
    people: int | None, in_space: int | None, enrolled: int, empty: bool
) -> None:
    """Not at a new site, nor with people enrolled on this device alone."""
    watch, health, _ = watch_with()
    watch.follow_gallery(rows(enrolled), lambda: None)
    told = SpaceOnRecord(people=in_space)
    watch.follow_records(SimpleNamespace(people=people, record=lambda _space: told))
    assert (codes(health) == ["gallery-empty"]) == empty
    assert watch.suppressed_reason() == ("gallery_empty" if empty else None)
