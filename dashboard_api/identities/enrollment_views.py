"""Answers to enrollments: what they show of a person, and like whom the new face looks."""

from collections.abc import Iterable

from broker_bridge.registry.matching.look_alikes import LookAlike
from dashboard_api.http.models import IdentityChange, PersonView, PhotoResult, View


class Resemblance(View):
    """Somebody else who is near: `similarity` is the cosine of the nearest vectors in `space`."""

    nearest_user_id: str
    similarity: float
    space: str


class PersonEnrolled(PersonView):
    look_alikes: list[Resemblance]


class IdentityPushed(IdentityChange):
    look_alikes: list[Resemblance]


class PhotoEnrolled(PhotoResult):
    look_alikes: list[Resemblance]


def resemblances(found: Iterable[LookAlike]) -> list[Resemblance]:
    return [
        Resemblance(nearest_user_id=one.user_id, similarity=one.similarity, space=one.space) for one in found
    ]
