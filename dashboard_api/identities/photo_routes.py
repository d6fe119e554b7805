"""Route for enrollment by photo: the photo is embedded in memory and never stored."""

from typing import Annotated, Any

from fastapi import APIRouter, Request

from broker_bridge.registry.api_keys import ApiKey
from broker_bridge.registry.identities.model import EnrollIdentity, Template
from dashboard_api.http.base_models import UserId
from dashboard_api.http.middleware import media_type
from dashboard_api.http.openapi import problems
from dashboard_api.http.problems import Problem
from dashboard_api.identities.conversions import default_space
from dashboard_api.identities.enrollment_views import PhotoEnrolled, to_look_alike_notes, to_warning_views
from dashboard_api.identities.photo_comparison import PhotoComparisonDep
from dashboard_api.identities.photo_warnings import NamedVector
from dashboard_api.services.dependencies import IdentitiesDep, LookAlikesDep, PhotosDep, SettingsDep
from dashboard_api.services.photos import PHOTO_TYPES
from dashboard_api.services.security import MAY_ENROLL

router = APIRouter(prefix="/api/v1/identities", tags=["people"])

_ACCEPTED_TYPES = frozenset(
    {*PHOTO_TYPES, "image/jpg", "image/pjpeg", "image/jfif", "image/heic", "application/octet-stream", ""}
)
# Every generator of clients knows the last one.
_DESCRIBED_TYPES = (*PHOTO_TYPES, "application/octet-stream")
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            photo_type: {"schema": {"type": "string", "format": "binary"}} for photo_type in _DESCRIBED_TYPES
        },
    }
}


# The photo is the bare body, since a file part of a form would be written to a temporary file.
@router.post("/{user_id}/photos", status_code=201, openapi_extra=_BODY, responses=problems(501))
async def enroll_by_photo(
    *,
    user_id: UserId,
    request: Request,
    comparison: PhotoComparisonDep,
    identities: IdentitiesDep,
    look_alikes: LookAlikesDep,
    photos: PhotosDep,
    settings: SettingsDep,
    key: Annotated[ApiKey, MAY_ENROLL],
) -> PhotoEnrolled:
    """Add the face of a photo to an enrolled person.

    Only the vector is stored, never the photo.
    """
    if photos is None:
        raise Problem(501, "photos-off", "enrollment by photo is off (api.photos); send vectors instead")
    # The content decides. Programs name JPEG in many ways, or not at all.
    if media_type(request.headers) not in _ACCEPTED_TYPES:
        raise Problem(415, "media-type-unsupported", f"send the photo itself as {', '.join(PHOTO_TYPES)}")
    space = default_space(settings, "face")
    await identities.get(user_id)
    face = await photos.embed(await request.body())
    named = NamedVector("the photo", face.vector)
    (disagreement,) = await comparison.compare(user_id, space, [named])
    template = Template(space, face.vector, face.quality, source="photo")
    # `must_exist`: an identity that was deleted in the meantime must stay deleted.
    change = EnrollIdentity(user_id, (template,), must_exist=True, by=key.name)
    checked = await look_alikes.enroll(change)
    return PhotoEnrolled(
        user_id=user_id,
        version=checked.outcome.result().version,
        space=space,
        quality=face.quality,
        warnings=to_warning_views(face, disagreement),
        look_alikes=to_look_alike_notes(checked.look_alikes),
        not_compared=list(checked.not_compared),
    )
