"""Route of `/api/v1/enrollments`: an identity with its photos in one transaction."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Request, Response

from broker_bridge.contract.errors import ContractError
from broker_bridge.registry.api_keys import ApiKey
from broker_bridge.registry.identities.model import EnrollIdentity, Template
from dashboard_api.http.multipart import parse_form
from dashboard_api.http.openapi import problems
from dashboard_api.http.problems import Problem
from dashboard_api.identities.conversions import default_space, to_listed
from dashboard_api.identities.enrollment_form import (
    EnrollmentFields,
    UploadedPhoto,
    describe_form,
    read_enrollment,
)
from dashboard_api.identities.enrollment_views import (
    EnrolledPhoto,
    EnrolledWithPhotos,
    to_look_alike_notes,
    to_warning_views,
)
from dashboard_api.identities.photo_comparison import PhotoComparisonDep
from dashboard_api.identities.photo_warnings import NamedVector
from dashboard_api.services.dependencies import LookAlikesDep, PhotosDep, SettingsDep, SimilarIdsDep
from dashboard_api.services.photos import PhotoService, PhotoVector
from dashboard_api.services.security import MAY_ENROLL

# Not below /identities, where the last segment is a user id.
router = APIRouter(prefix="/api/v1/enrollments", tags=["people"])


@router.post(
    "",
    openapi_extra=describe_form(),
    responses={201: {"model": EnrolledWithPhotos, "description": "Created"}, **problems(501)},
)
async def enroll_with_photos(
    *,
    request: Request,
    response: Response,
    comparison: PhotoComparisonDep,
    look_alikes: LookAlikesDep,
    photos: PhotosDep,
    settings: SettingsDep,
    similar_ids: SimilarIdsDep,
    key: Annotated[ApiKey, MAY_ENROLL],
) -> EnrolledWithPhotos:
    """Enroll an identity with photos, all or nothing.

    A failure changes nothing. Sending the same form once more, say after a lost answer, has no further effect
    and gives 200. Only vectors are stored, never a photo.
    """
    if photos is None:
        raise Problem(501, "photos-off", "enrollment by photo is off (api.photos); send vectors instead")
    fields, uploaded = read_enrollment(parse_form(request.headers, await request.body()))
    space = default_space(settings, "face")
    faces = await _embed_all(photos, uploaded, settings.photo_max_bytes)
    named = [NamedVector(photo.file_name, face.vector) for photo, face in zip(uploaded, faces, strict=True)]
    disagreements = await comparison.compare(fields.user_id, space, named)
    templates = tuple(Template(space, face.vector, face.quality, source="photo") for face in faces)
    checked = await look_alikes.enroll(_to_change(fields, templates, key.name))
    outcome = checked.outcome
    identity = outcome.result()
    response.status_code = 201 if outcome.created else 200
    view = to_listed(identity, await similar_ids.find_similar([identity]))
    return EnrolledWithPhotos(
        **view.model_dump(),
        photos=[
            EnrolledPhoto(
                file_name=photo.file_name,
                space=space,
                quality=face.quality,
                warnings=to_warning_views(face, disagreement),
            )
            for photo, face, disagreement in zip(uploaded, faces, disagreements, strict=True)
        ],
        templates_added=outcome.added,
        look_alikes=to_look_alike_notes(checked.look_alikes),
        not_compared=list(checked.not_compared),
    )


async def _embed_all(
    service: PhotoService, uploaded: Sequence[UploadedPhoto], max_bytes: int
) -> list[PhotoVector]:
    """Return the face of each photo; raise Problem 422 with every photo that has none."""
    faces: list[PhotoVector] = []
    refused: list[tuple[str, ContractError]] = []
    for photo in uploaded:
        try:
            faces.append(await _embed(service, photo.data, max_bytes))
        except ContractError as error:
            refused.append((photo.file_name, error))
    if refused:
        sentences = "; ".join(f"{name}: {error.detail}" for name, error in refused)
        codes = {error.code for _, error in refused}
        raise Problem(
            422,
            codes.pop() if len(codes) == 1 else "photos-unusable",
            f"{sentences}. {len(refused)} of {len(uploaded)} photos cannot be used, so nothing was changed",
            photos=[
                {"file_name": name, "code": error.code, "detail": error.detail} for name, error in refused
            ],
        )
    return faces


async def _embed(service: PhotoService, data: bytes, max_bytes: int) -> PhotoVector:
    if len(data) > max_bytes:
        raise ContractError("photo-too-large", f"the file has more than {max_bytes} bytes")
    return await service.embed(data)


def _to_change(fields: EnrollmentFields, templates: tuple[Template, ...], by: str) -> EnrollIdentity:
    return EnrollIdentity(
        fields.user_id,
        templates,
        display_name=fields.display_name,
        flag=fields.flag,
        sites=None if fields.sites is None else tuple(fields.sites),
        mode=fields.mode,
        by=by,
    )
