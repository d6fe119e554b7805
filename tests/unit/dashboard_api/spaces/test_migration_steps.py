"""The sentences of the steps of a migration."""

from typing import Any

import pytest

from broker_bridge.contract.spaces import LimitsSource, SpaceLimits, SpaceRecord
from broker_bridge.registry.space_migration import MigrationState, SiteMigration
from dashboard_api.spaces.migration_steps import Migration
from tests.space_limits import LIMITS


def migration(modality: str = "face", limits: SpaceLimits | None = LIMITS, **changed: Any) -> Migration:
    """Return a migration of which nothing but the record is done."""
    new = f"{modality}:new"
    source = LimitsSource(kind="shipped") if limits else None
    known = {"in_both": 0, "only_old": 0, "only_new": 0, "withheld": 0, "sites": ()}
    return Migration(
        old=f"{modality}:old",
        new=SpaceRecord(space=new, dimension=8, limits=limits, source=source),
        state=MigrationState(**{**known, **{name: changed[name] for name in known if name in changed}}),
        api_space=changed.get("api_space", new),
        is_removed=changed.get("is_removed", False),
        enrolls_photos=changed.get("enrolls_photos", True),
    )


CAMERAS = tuple(f"cam-{n}" for n in range(1, 8))
READY = SiteMigration("lobby", 2, 2, on_old=CAMERAS)
WAITING = SiteMigration("gate", 2, 1, on_new=("cam-8", "cam-9"))


@pytest.mark.parametrize(
    ("step", "found", "done", "words"),
    [
        ("record", migration(), True, "face:new is on record with limits (shipped)"),
        ("record", migration(limits=None), False, "wfm-fleet model calibrate"),
        ("api", migration(), True, "the API enrolls into face:new"),
        ("api", migration(api_space="face:old"), False, "set api.face_model for face:new"),
        ("api", migration(api_space=None, enrolls_photos=False), False, "set api.default_spaces.face for"),
        ("api", migration(api_space=None), False, "the API enrolls into no space"),
        ("api", migration("gait", api_space="gait:old"), False, "set api.default_spaces.gait for gait:new"),
        ("people", migration(), True, "face:old has no people to enroll in face:new"),
        ("people", migration(in_both=2, only_old=1, withheld=1), True, "2 people of face:old enrolled"),
        ("people", migration(in_both=2, only_old=1, withheld=1), True, "; 1 person without consent left out"),
        ("people", migration(in_both=2, only_old=3, withheld=1), False, "2 people of 4 in face:old are not"),
        ("people", migration(only_old=1), False, "1 person of 1 in face:old is not in face:new yet"),
        ("cameras", migration(), True, "no device declares face:old, and 0 declare face:new"),
        (
            "cameras",
            migration(sites=(READY,)),
            False,
            "cam-5 and 2 more declare face:old; ready to",
        ),
        ("cameras", migration(sites=(READY,), api_space="face:old"), False, "no site is ready to change"),
        (
            "cameras",
            migration(sites=(WAITING,)),
            True,
            "warning: cam-8, cam-9 declare face:new already",
        ),
        ("removal", migration(), False, "face:old is still there"),
        ("removal", migration(is_removed=True), True, "face:old is removed"),
    ],
)
def test_a_step_says_what_is_the_case_and_what_to_do(
    step: str, found: Migration, done: bool, words: str
) -> None:
    """Open steps name the remedy; counts have their plural."""
    (told,) = [one for one in found.steps() if one.step == step]
    assert (told.done, words in told.detail) == (done, True), told.detail


@pytest.mark.parametrize(
    ("site", "found", "ready"),
    [
        (READY, migration(), True),
        (READY, migration(limits=None), False),
        (READY, migration(api_space="face:old"), False),
        (WAITING, migration(), False),
        (SiteMigration("cellar"), migration(), True),
    ],
)
def test_a_site_is_ready_once_record_api_and_its_people_are(
    site: SiteMigration, found: Migration, ready: bool
) -> None:
    """A site without people waits for record and API alone."""
    assert found.is_ready(site) is ready
    assert (found.warning(site) is not None) == (bool(site.on_new) and not ready)
