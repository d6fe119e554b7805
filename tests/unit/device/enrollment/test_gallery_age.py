"""A gallery that is too old is stale and matches no face."""

from datetime import timedelta

import pytest

from device.program import gallery_is_stale
from tests.device_samples import NOON

HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("synced_at", "empty", "longest", "stale"),
    [
        (None, True, None, True),
        (None, False, None, False),
        (None, False, 24.0, True),
        (NOON - 100 * HOUR, False, None, False),
        (NOON - 1 * HOUR, False, 2.0, False),
        (NOON - 3 * HOUR, False, 2.0, True),
        (NOON - 1 * HOUR, True, 2.0, False),
        (NOON + 3 * HOUR, False, 2.0, True),
        (NOON + 1 * HOUR, False, 2.0, False),
    ],
    ids=[
        "never synced, empty",
        "never synced, local identities",
        "never synced, with a limit",
        "old, without a limit",
        "young enough",
        "too old",
        "a site without identities",
        "a clock that lost its battery",
        "a clock that was set back a little",
    ],
)
def test_a_gallery_is_stale(synced_at, empty, longest, stale):
    """`max_age_hours` decides; an empty gallery is stale before its first sync."""
    assert gallery_is_stale(NOON, synced_at, empty=empty, max_age_hours=longest) == stale
