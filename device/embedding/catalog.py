"""Call the photo catalog (seed 001); its answers are untrusted and checked."""

from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import quote

import httpx
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from .errors import JobFailedError, PhotoSkippedError, RequestRefusedError, ServiceFaultError, TooLargeError
from .retrier import RequestRetrier
from .service import HttpService

METADATA_INVALID = "metadata-invalid"
PHOTO_MISSING = "photo-missing"
PHOTO_REFUSED = "photo-refused"
PHOTO_TOO_LARGE = "photo-too-large"
PHOTO_UNAVAILABLE = "photo-unavailable"
URL_FOREIGN = "url-foreign"

_MAX_METADATA_BYTES = 64 * 1024
_MAX_LISTING_BYTES = 32 * 1024 * 1024
_PHOTO_ATTEMPTS = 3
_GONE = frozenset({404, 410})
_INT64 = 2**63


def _as_text(value: Any) -> Any:
    is_number = isinstance(value, int) and not isinstance(value, bool) and -_INT64 <= value < _INT64
    return str(value) if is_number else value


def _check_printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("an id has printable characters only")
    return value


Id = Annotated[
    str,
    Field(min_length=1, max_length=255),
    BeforeValidator(_as_text),
    AfterValidator(_check_printable),
]
"""An id of the catalog: a text, or an integer that is read as text."""


class CatalogPhoto(BaseModel):
    """A photo's metadata: the person on it, if known, and the address of its bytes."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    photo_id: Id
    person_id: Id | None = None
    person_name: Annotated[str, Field(max_length=255)] | None = None
    file_url: Annotated[str, Field(max_length=2048)] | None = None


@dataclass(frozen=True)
class UnreadableEntry:
    """An entry of a listing that is not a photo's metadata."""


def _or_unreadable(value: Any, read: ValidatorFunctionWrapHandler) -> Any:
    try:
        return read(value)
    except ValidationError:
        return UnreadableEntry()


class _Listing(BaseModel):
    photos: list[Annotated[CatalogPhoto | UnreadableEntry, WrapValidator(_or_unreadable)]]


class Catalog:
    """Fetch metadata and bytes of photos, and retry while the catalog is unavailable."""

    def __init__(self, service: HttpService, retrier: RequestRetrier, *, max_photo_bytes: int) -> None:
        self._service = service
        self._retrier = retrier
        self._max_photo_bytes = max_photo_bytes

    async def list_batch(self, batch_id: str) -> list[CatalogPhoto | UnreadableEntry]:
        """Return the photos of a batch in the catalog's order; raises JobFailedError."""
        try:
            url = self._service.url(f"/api/batches/{_quoted(batch_id)}/photos")
            answer = await self._retrier.request(lambda: self._service.get(url, _MAX_LISTING_BYTES))
            return _Listing.model_validate_json(answer.body).photos
        except (RequestRefusedError, PhotoSkippedError) as error:
            raise JobFailedError(f"the catalog does not give the batch: {error}") from error
        except (TooLargeError, ValidationError) as error:
            raise JobFailedError(
                "the catalog's list of the batch is not a list of photos of at most "
                f"{_MAX_LISTING_BYTES // 2**20} MiB"
            ) from error

    async def find(self, photo_id: str) -> CatalogPhoto:
        """Return a photo's metadata; raises PhotoSkippedError."""
        body = await self._fetch(self._service.url(f"/api/photos/{_quoted(photo_id)}"), _MAX_METADATA_BYTES)
        try:
            photo = CatalogPhoto.model_validate_json(body)
        except ValidationError as error:
            raise PhotoSkippedError(METADATA_INVALID) from error
        if photo.photo_id != photo_id:
            raise PhotoSkippedError(METADATA_INVALID)
        return photo

    async def load(self, photo: CatalogPhoto) -> bytes:
        """Return the bytes of a photo.

        Raises PhotoSkippedError. Nothing is written to disk.
        """
        if photo.file_url is None:
            url = self._service.url(f"/api/photos/{_quoted(photo.photo_id)}/file")
        else:
            url = same_origin(self._service.base, photo.file_url)
        return await self._fetch(url, self._max_photo_bytes)

    async def _fetch(self, url: httpx.URL, max_bytes: int) -> bytes:
        try:
            answer = await self._retrier.request(
                lambda: self._service.get(url, max_bytes), faults=_PHOTO_ATTEMPTS
            )
        except TooLargeError as error:
            raise PhotoSkippedError(PHOTO_TOO_LARGE) from error
        except ServiceFaultError as error:
            raise PhotoSkippedError(PHOTO_UNAVAILABLE) from error
        except RequestRefusedError as error:
            raise PhotoSkippedError(PHOTO_MISSING if error.status in _GONE else PHOTO_REFUSED) from error
        return answer.body


def same_origin(base: httpx.URL, text: str) -> httpx.URL:
    """Return the URL of `text` if it has the scheme, host and port of `base`.

    `text` is relative to `base` or absolute. Raises PhotoSkippedError: the catalog must not direct this
    worker to other servers. The comparison uses the URL that is requested, so that parsers cannot disagree.
    """
    try:
        url = base.join(text)
    except (httpx.InvalidURL, ValueError, TypeError) as error:
        raise PhotoSkippedError(URL_FOREIGN) from error
    if _origin(url) != _origin(base) or url.userinfo:
        raise PhotoSkippedError(URL_FOREIGN)
    return url.copy_with(fragment=None)


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    port = url.port or {"http": 80, "https": 443}.get(url.scheme)
    return url.scheme, url.host.lower(), port


def _quoted(part: str) -> str:
    """Return an id as one step of a path; raises PhotoSkippedError for `.` and `..`."""
    if part in {".", ".."}:
        raise PhotoSkippedError(METADATA_INVALID)
    return quote(part, safe="")
