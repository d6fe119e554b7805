"""Say how much each group of benchmarks measures."""

from dataclasses import dataclass, replace

from fleet.tracks.course import STANDARD, Course


@dataclass(frozen=True)
class Scale:
    """Amounts of a run.

    Ours and the bare library alternate `turns` times. `seconds` is the length of streams, `changes`,
    `frames` and `runs` count repetitions, `events` those of a run at saturation. `identities` are synced and
    ingested; `largest_gallery` adds a cold sync of so many, and `persons` are the sizes of search indexes.
    `fan_cameras` receive changes, `storm_cameras` reconnect at once, `observing_cameras` follow persons, and
    `matches` faces are compared with the active ones. `pictures` is the number of photographs that become
    event images.
    """

    seconds: float = 30.0
    turns: int = 5
    changes: int = 200
    frames: int = 500
    runs: int = 7
    events: int = 40_000
    identities: int = 10_000
    largest_gallery: int | None = 100_000
    fan_cameras: int = 200
    storm_cameras: int = 1000
    templates: tuple[int, ...] = (10_000, 100_000)
    persons: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    known_persons: int = 100_000
    observing_cameras: int = 50
    matches: int = 5_000
    warm_up_seconds: float = 10.0
    pictures: int = 11
    course: Course = STANDARD


FULL = Scale()
SMALL = replace(
    FULL,
    largest_gallery=None,
    storm_cameras=200,
    templates=FULL.templates[:1],
    persons=FULL.persons[:2],
    known_persons=10_000,
)
"""No gallery of 100,000 templates, nor an index of 1,000,000 persons."""
SHORT = Scale(
    seconds=1.0,
    turns=1,
    changes=2,
    frames=3,
    runs=1,
    events=200,
    identities=100,
    largest_gallery=None,
    fan_cameras=4,
    storm_cameras=4,
    templates=(1_000,),
    persons=(1_000,),
    known_persons=2_000,
    observing_cameras=3,
    matches=50,
    warm_up_seconds=1.0,
    pictures=1,
    course=Course(cameras=3, walkers=4, seconds=20.0),
)
"""Shows that every group works; its figures say nothing about speed."""
