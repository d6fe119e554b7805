"""Routes of `/api/identities`: identities by external key (seed 001)."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel
from starlette.requests import ClientDisconnect

from broker_bridge.registry.api_keys import ApiKey
from broker_bridge.registry.identities.model import ExternalKey, Identity
from dashboard_api.external.changes import (
    BATCH_CHANGES,
    ItemChange,
    new_external_user_id,
    to_batches,
    to_ingest_change,
    to_sync_change,
)
from dashboard_api.external.intake import ExternalIntake
from dashboard_api.external.items import LINE_MAX_BYTES, Parsed, parse_ingest, parse_line, parse_sync
from dashboard_api.external.ndjson import line_batches
from dashboard_api.external.tally import IngestTally, ItemErrors, to_sync_answer
from dashboard_api.external.views import (
    ExternalFaces,
    ExternalPage,
    ExternalRow,
    IngestAnswer,
    IngestBody,
    IngestLine,
    ItemError,
    SourceSystem,
    SyncAnswer,
    SyncBody,
)
from dashboard_api.http.json_bodies import JSON_MEDIA_TYPE, JSON_TYPE
from dashboard_api.http.middleware import NDJSON_MEDIA_TYPE, media_type
from dashboard_api.http.openapi import inline_schema
from dashboard_api.http.paging import ExternalCursor, Limit, cursor_invalid, cut_page, from_cursor, to_cursor
from dashboard_api.http.problems import Problem
from dashboard_api.identities.conversions import default_space
from dashboard_api.services.dependencies import IdentitiesDep, LookAlikesDep, SettingsDep, SpacesDep
from dashboard_api.services.security import MAY_ENROLL, MAY_FOLLOW_WORK

router = APIRouter(prefix="/api/identities", tags=["external sources (seed 001)"])

_BATCH_BYTES = 4 * 1024 * 1024


def _describe_body(models: Mapping[str, type[BaseModel]]) -> dict[str, Any]:
    """Return the OpenAPI description of a body that the route reads by itself."""
    content = {body_type: {"schema": inline_schema(model)} for body_type, model in models.items()}
    return {"requestBody": {"required": True, "content": content}}


@router.post(
    "/sync",
    dependencies=[JSON_TYPE],
    openapi_extra=_describe_body({JSON_MEDIA_TYPE: SyncBody}),
    response_model_exclude_none=True,
)
async def sync(request: Request, identities: IdentitiesDep, key: Annotated[ApiKey, MAY_ENROLL]) -> SyncAnswer:
    """Create, rename and delete identities by external key.

    A rejected item is listed with its reason and stops no other. An image, a URL or the name of an image file
    anywhere rejects the whole request.
    """
    raw = await _read_body(request)
    errors, items = ItemErrors(), []
    for parsed in await asyncio.to_thread(parse_sync, raw):
        if isinstance(parsed, ItemError):
            errors.add(parsed)
        else:
            items.append(to_sync_change(parsed, key.name, new_external_user_id))
    outcomes = await identities.apply([item.change for item in items])
    return to_sync_answer(items, outcomes, errors)


@router.post(
    "/ingest-embeddings",
    openapi_extra=_describe_body({JSON_MEDIA_TYPE: IngestBody, NDJSON_MEDIA_TYPE: IngestLine}),
    response_model_exclude_none=True,
)
async def ingest(
    *,
    request: Request,
    look_alikes: LookAlikesDep,
    spaces: SpacesDep,
    settings: SettingsDep,
    key: Annotated[ApiKey, MAY_ENROLL],
) -> IngestAnswer:
    """Add vectors to identities, which are found or created by external key.

    A vector that the identity already has is skipped. The body is one JSON document, which an image anywhere
    rejects as a whole. Or it is `application/x-ndjson` with any number of lines, one identity a line: an
    image ends the request, and the lines before it are stored.
    """
    body_type = media_type(request.headers)
    if body_type not in (JSON_MEDIA_TYPE, NDJSON_MEDIA_TYPE):
        detail = f"send the body as {JSON_MEDIA_TYPE} or {NDJSON_MEDIA_TYPE}"
        raise Problem(415, "media-type-unsupported", detail)
    reader = _IngestReader(await spaces.dimensions(), default_space(settings, "face"), key.name)
    tally = IngestTally()
    async with ExternalIntake(look_alikes, tally) as intake:
        if body_type == NDJSON_MEDIA_TYPE:
            await _ingest_lines(request, reader, intake, tally)
        else:
            raw = await _read_body(request)
            await _ingest_items(await asyncio.to_thread(reader.read_body, raw), intake, tally)
    return tally.to_answer()


@dataclass(frozen=True)
class _IngestReader:
    """Converts bytes into changes; it runs in a thread."""

    dimensions: Mapping[str, int]
    default_space: str
    by: str

    def read_body(self, raw: bytes) -> list[ItemChange | ItemError]:
        return [self._to_change(parsed) for parsed in parse_ingest(raw)]

    def read_lines(self, batch: Sequence[tuple[int, bytes | None]]) -> list[ItemChange | ItemError]:
        return [self._to_change(parse_line(number, line)) for number, line in batch]

    def _to_change(self, parsed: Parsed[ExternalFaces]) -> ItemChange | ItemError:
        if isinstance(parsed, ItemError):
            return parsed
        return to_ingest_change(parsed, self.dimensions, self.default_space, self.by, new_external_user_id)


async def _ingest_items(
    items: Sequence[ItemChange | ItemError], intake: ExternalIntake, tally: IngestTally
) -> None:
    changes = []
    for item in items:
        if isinstance(item, ItemError):
            tally.errors.add(item)
        else:
            changes.append(item)
    for batch in to_batches(changes):
        await intake.put(batch)


async def _ingest_lines(
    request: Request, reader: _IngestReader, intake: ExternalIntake, tally: IngestTally
) -> None:
    try:
        async for batch in line_batches(request.stream(), LINE_MAX_BYTES, BATCH_CHANGES, _BATCH_BYTES):
            await _ingest_items(await asyncio.to_thread(reader.read_lines, batch), intake, tally)
    except ClientDisconnect as error:
        raise _body_incomplete() from error


async def _read_body(request: Request) -> bytes:
    try:
        return await request.body()
    except ClientDisconnect as error:
        raise _body_incomplete() from error


def _body_incomplete() -> Problem:
    return Problem(400, "request-unreadable", "the body is incomplete: send the request again")


@router.get("/external", dependencies=[MAY_FOLLOW_WORK])
async def list_external(
    identities: IdentitiesDep,
    source_system: Annotated[SourceSystem | None, Query(description="Only identities of this source")] = None,
    limit: Limit = 100,
    cursor: ExternalCursor = None,
) -> ExternalPage:
    """List identities of other systems, a row per external key, in order of user id."""
    first, skipped_keys = _from_external_cursor(cursor)
    found = await identities.page_external(source_system, first=first, limit=limit + 2)
    rows = [
        (identity, number, external)
        for identity in found
        for number, external in enumerate(identity.external)
        if source_system in (None, external.source_system)
        and (identity.user_id, number) >= (first, skipped_keys)
    ]
    page, next_cursor = cut_page(rows, limit, lambda last: to_cursor(last[0].user_id, str(last[1] + 1)))
    return ExternalPage(
        identities=[_to_row(identity, external) for identity, _, external in page], next_cursor=next_cursor
    )


def _from_external_cursor(cursor: str | None) -> tuple[str, int]:
    """Return the user id that a page begins with, and how many of its keys to skip."""
    user_id, skipped_keys = from_cursor(cursor, 2) or ("", "0")
    if not re.fullmatch(r"[0-9]{1,6}", skipped_keys):
        raise cursor_invalid()
    return user_id, int(skipped_keys)


def _to_row(identity: Identity, external: ExternalKey) -> ExternalRow:
    return ExternalRow(
        identity_id=identity.user_id,
        external_id=external.external_id,
        source_system=external.source_system,
        name=identity.display_name,
        embedding_count=sum(holding.digest.count for holding in identity.holdings),
        first_seen=identity.created_at,
        last_seen=identity.updated_at,
    )
