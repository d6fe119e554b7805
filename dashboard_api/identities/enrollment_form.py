"""The form of an enrollment with photos."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi.exceptions import RequestValidationError
from pydantic import ConfigDict, Field, ValidationError, model_validator

from broker_bridge.contract.ids import SiteId
from broker_bridge.contract.messages import Flag
from broker_bridge.registry.identities.model import EnrollmentMode
from dashboard_api.http.base_models import Body, DisplayName, UserId
from dashboard_api.http.multipart import Part
from dashboard_api.http.openapi import inline_schema
from dashboard_api.http.problems import Problem

MAX_PHOTOS = 20
_PHOTO = "photo"
_SITES = "sites"
_MAX_SHOWN_NAME = 100


class EnrollmentFields(Body):
    """The fields of the form besides its photos; an empty field counts as absent."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    user_id: Annotated[UserId, Field(description="Id of the identity", examples=["EMP-12345"])]
    mode: Annotated[
        EnrollmentMode,
        Field(description="`create` refuses an enrolled identity; `add` adds photos to one, nothing else"),
    ] = "create"
    display_name: Annotated[DisplayName | None, Field(description="Name shown to people")] = None
    flag: Annotated[Flag | None, Field(description="Mark that cameras report with each event")] = None
    sites: Annotated[
        list[SiteId] | None,
        Field(max_length=1000, description="Sites of the identity, a field each; without them every site"),
    ] = None

    @model_validator(mode="after")
    def _check_mode(self) -> "EnrollmentFields":
        if self.mode == "add" and (self.display_name or self.flag or self.sites):
            raise ValueError("mode=add takes photos alone; PATCH of the identity changes its fields")
        return self


@dataclass(frozen=True)
class UploadedPhoto:
    """A photo of the form, with the name that problems show."""

    file_name: str
    data: bytes


def read_enrollment(parts: Sequence[Part]) -> tuple[EnrollmentFields, list[UploadedPhoto]]:
    """Return fields and photos of a form.

    Raises RequestValidationError, or Problem 422 for no photo or too many.
    """
    photos = [part for part in parts if part.name == _PHOTO]
    # A browser sends an empty part for a file field without a file.
    given = [part for part in photos if part.data or part.file_name]
    if not given:
        raise Problem(422, "photo-missing", "the form has no photo: send at least one file as `photo`")
    if len(given) > MAX_PHOTOS:
        raise Problem(422, "photos-too-many", f"{len(given)} photos: send at most {MAX_PHOTOS} at once")
    named = [UploadedPhoto(_shown_name(part, place), part.data) for place, part in enumerate(given, start=1)]
    return _read_fields([part for part in parts if part.name != _PHOTO]), named


def _read_fields(parts: Sequence[Part]) -> EnrollmentFields:
    fields: dict[str, Any] = {}
    for part in parts:
        text = part.text()
        if not text.strip():
            continue
        if part.name == _SITES:
            fields.setdefault(_SITES, []).append(text.strip())
        elif part.name in fields:
            raise Problem(422, "request-invalid", "the form has a field twice")
        else:
            fields[part.name] = text
    try:
        return EnrollmentFields.model_validate(fields)
    except ValidationError as error:
        details = [{**one, "loc": ("body", *one["loc"])} for one in error.errors(include_url=False)]
        raise RequestValidationError(details) from error


def _shown_name(part: Part, place: int) -> str:
    name = "".join(letter for letter in part.file_name or "" if letter.isprintable())
    return name[:_MAX_SHOWN_NAME] or f"photo {place}"


def describe_form() -> dict[str, Any]:
    """Return the request body of the operation for the OpenAPI document."""
    schema = inline_schema(EnrollmentFields)
    schema["properties"][_PHOTO] = {
        "type": "array",
        "items": {"type": "string", "format": "binary"},
        "minItems": 1,
        "maxItems": MAX_PHOTOS,
        "description": "Photos of the person alone, a file each",
    }
    schema["required"] = [*schema["required"], _PHOTO]
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}
