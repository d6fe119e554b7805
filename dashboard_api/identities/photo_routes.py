"""Enrollment by photo: the body is the picture, read into memory, embedded and forgotten."""

from typing import Annotated, Any

from fastapi import APIRouter, Request

from broker_bridge.contract.ids import UserId
from broker_bridge.registry.api_keys import ApiKey
from broker_bridge.registry.identities.model import EnrollIdentity, Template
from dashboard_api.http.problems import Problem
from dashboard_api.identities.conversions import default_space
from dashboard_api.identities.enrollment_views import PhotoEnrolled, resemblances
from dashboard_api.services.photos import PHOTO_TYPES
from dashboard_api.services.security import MAY_ENROLL
from dashboard_api.services.services import ServicesDep

router = APIRouter(prefix="/api/v1/identities", tags=["people"])

_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in PHOTO_TYPES},
    }
}


# A form with a file part would be written to a temporary file on its way: hence the bare body.
@router.post("/{user_id}/photos", status_code=201, openapi_extra=_BODY)
async def enroll_by_photo(
    user_id: UserId, request: Request, services: ServicesDep, key: Annotated[ApiKey, MAY_ENROLL]
) -> PhotoEnrolled:
    """Add the face of a photo to a person who is on record. Only the vector is kept."""
    if services.photos is None:
        raise Problem(501, "photos-off", "enrollment by photo is switched off here (api.photos)")
    declared = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if declared not in PHOTO_TYPES:
        raise Problem(415, "media-type-unsupported", f"send the photo itself as {' or '.join(PHOTO_TYPES)}")
    space = default_space(services.settings, "face")
    await services.registry.identities.get(user_id)
    face = await services.photos.embed(await request.body())
    template = Template(space, face.vector, face.quality, source="photo")
    # The person may have been deleted meanwhile, and must not come back by this.
    order = EnrollIdentity(user_id, (template,), must_exist=True, by=key.name)
    checked = await services.registry.look_alikes.enroll(order)
    return PhotoEnrolled(
        user_id=user_id,
        version=checked.outcome.result().version,
        space=space,
        quality=face.quality,
        look_alikes=resemblances(checked.look_alikes),
    )
