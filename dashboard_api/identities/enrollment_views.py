"""Response bodies of enrollments, with the look-alikes of the new face."""

from collections.abc import Iterable

from pydantic import Field, model_serializer

from broker_bridge.registry.matching.near_faces import LookAlike
from dashboard_api.http.base_models import View
from dashboard_api.identities.photo_warnings import PHOTO_DISAGREES
from dashboard_api.identities.views import IdentityChangeView, ListedIdentity, PhotoResult, PhotoWarningView
from dashboard_api.services.photos import PhotoVector, warnings_of


class LookAlikeNote(View):
    """A near identity; `similarity` is the cosine of the nearest vectors in `space`."""

    nearest_user_id: str
    similarity: float
    space: str


class ComparedView(View):
    """An answer that names the spaces of new vectors that have no limits.

    No look-alike was searched there. `not_compared` is left out if there is no such space, and so are the
    `warnings` of a good photo.
    """

    not_compared: list[str] = Field(default_factory=list)

    # Without annotations: a return type would replace the schema of the whole model.
    @model_serializer(mode="wrap")
    def _leave_out_none(self, serialize):  # type: ignore[no-untyped-def]
        document = serialize(self)
        for name in ("not_compared", "warnings"):
            if not document.get(name):
                document.pop(name, None)
        return document


class IdentityEnrolled(ListedIdentity, ComparedView):
    look_alikes: list[LookAlikeNote]


class IdentityPushed(IdentityChangeView, ComparedView):
    look_alikes: list[LookAlikeNote]


class PhotoEnrolled(PhotoResult, ComparedView):
    look_alikes: list[LookAlikeNote]


class EnrolledPhoto(View):
    """A photo of an enrollment; `quality` 0..1 is that of its face.

    `warnings` say what would make a better photo, and that it does not look like the others of the identity.
    """

    file_name: str
    space: str
    quality: float
    warnings: list[PhotoWarningView]


class EnrolledWithPhotos(IdentityEnrolled):
    """An identity after an enrollment with photos.

    `templates_added` counts the photos whose vectors are new and kept: an identity keeps the most different
    good templates, up to the limit of a space.
    """

    photos: list[EnrolledPhoto]
    templates_added: int


def to_look_alike_notes(found: Iterable[LookAlike]) -> list[LookAlikeNote]:
    return [
        LookAlikeNote(
            nearest_user_id=look_alike.user_id, similarity=look_alike.similarity, space=look_alike.space
        )
        for look_alike in found
    ]


def to_warning_views(photo: PhotoVector, disagreement: str | None) -> list[PhotoWarningView]:
    """Return the warnings of a photo, and that it does not look like the others."""
    views = [PhotoWarningView(code=warning.code, detail=warning.detail) for warning in warnings_of(photo)]
    if disagreement is not None:
        views.append(PhotoWarningView(code=PHOTO_DISAGREES, detail=disagreement))
    return views
