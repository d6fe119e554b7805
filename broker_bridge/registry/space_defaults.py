"""Hold the default similarity limits of embedding spaces.

Configuration overrides them.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class SpaceDefaults:
    """Default limits of a space as cosine similarities.

    The settings of each purpose explain them.
    """

    same_person: float = 0.65
    look_alike: float = 0.5
    margin: float = 0.05
    tracked_similarity: float = 0.6
    tracked_margin: float = 0.05
    tracked_by_position: float = 0.45


GENERAL = SpaceDefaults()

_BY_SPACE = {
    # The trial space separates faces poorly: strangers have a similarity of 0.58 on average, and up to 0.73
    # among a hundred.
    "face:gabor-512": SpaceDefaults(
        same_person=0.75, look_alike=0.7, tracked_similarity=0.75, tracked_by_position=0.7
    ),
}


def defaults_for(space: str) -> SpaceDefaults:
    """Return the default limits of a space.

    A space without an entry of its own has `GENERAL`.
    """
    return _BY_SPACE.get(space, GENERAL)
