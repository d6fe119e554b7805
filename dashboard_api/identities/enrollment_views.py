"""Answers to enrollments: what they show of a person, and like whom the new face looks."""

from collections.abc import Iterable

from broker_bridge.registry.matching.look_alikes import LookAlike
from dashboard_api.http.base_models import View
from dashboard_api.identities.views import IdentityChangeView, IdentityView, PhotoResult


class LookAlikeNote(View):
    """Somebody else who is near: `similarity` is the cosine of the nearest vectors in `space`."""

    nearest_user_id: str
    similarity: float
    space: str


class IdentityEnrolled(IdentityView):
    look_alikes: list[LookAlikeNote]


class IdentityPushed(IdentityChangeView):
    look_alikes: list[LookAlikeNote]


class PhotoEnrolled(PhotoResult):
    look_alikes: list[LookAlikeNote]


def resemblances(found: Iterable[LookAlike]) -> list[LookAlikeNote]:
    return [
        LookAlikeNote(nearest_user_id=one.user_id, similarity=one.similarity, space=one.space)
        for one in found
    ]
