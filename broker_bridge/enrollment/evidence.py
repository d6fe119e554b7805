"""What the digests of a device say about the version that it reports."""

from enum import Enum


class Evidence(Enum):
    """A report counts as a confirmation if its digests are `SAME`.

    `PAST` is a version whose digests are not kept, `AHEAD` one that the publisher has not reached yet.
    """

    SAME = "same"
    DIFFERENT = "different"
    PAST = "past"
    AHEAD = "ahead"
