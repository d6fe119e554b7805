"""`/api/identities`: people whom other systems bring, by those systems' own keys (seed 001)."""

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
from dashboard_api.external.intake import ExternalIntake, IngestTally, ItemErrors, lines, sync_answer
from dashboard_api.external.items import LINE_MAX_BYTES, Read, read_ingest, read_line, read_sync
from dashboard_api.external.requests import (
    BATCH_ORDERS,
    ItemChange,
    batches,
    new_external_user_id,
    to_ingest_order,
    to_sync_order,
)
from dashboard_api.external.views import (
    ExternalPage,
    ExternalRow,
    IngestAnswer,
    IngestBody,
    IngestLine,
    ItemError,
    PersonFaces,
    SourceSystem,
    SyncAnswer,
    SyncBody,
)
from dashboard_api.http.json_bodies import JSON_TYPE
from dashboard_api.http.middleware import NDJSON_MEDIA_TYPE, media_type
from dashboard_api.http.openapi import inline_schema
from dashboard_api.http.paging import Cursor, Limit, cursor_invalid, from_cursor, to_cursor
from dashboard_api.http.problems import Problem
from dashboard_api.identities.conversions import default_space
from dashboard_api.services.security import MAY_ENROLL, MAY_FOLLOW_WORK
from dashboard_api.services.services import Services, ServicesDep

router = APIRouter(prefix="/api/identities", tags=["external sources (seed 001)"])

_BATCH_BYTES = 4 * 1024 * 1024
JSON_MEDIA_TYPE = "application/json"


def _body(**models: type[BaseModel]) -> dict[str, Any]:
    """What the documentation says of a body that the route reads by itself."""
    types = {"json": JSON_MEDIA_TYPE, "lines": NDJSON_MEDIA_TYPE}
    content = {types[kind]: {"schema": inline_schema(model)} for kind, model in models.items()}
    return {"requestBody": {"required": True, "content": content}}


@router.post(
    "/sync", dependencies=[JSON_TYPE], openapi_extra=_body(json=SyncBody), response_model_exclude_none=True
)
async def sync(request: Request, services: ServicesDep, key: Annotated[ApiKey, MAY_ENROLL]) -> SyncAnswer:
    """Make, rename and delete people by their keys. An item that is refused is listed with its reason and
    stops no other; a picture, a URL or the name of an image file anywhere stops the whole request."""
    raw = await _whole(request)
    errors, ordered = ItemErrors(), []
    for item in await asyncio.to_thread(read_sync, raw):
        if isinstance(item, ItemError):
            errors.add(item)
        else:
            ordered.append(to_sync_order(item, key.name, new_external_user_id))
    outcomes = await services.registry.identities.apply([item.order for item in ordered])
    return sync_answer(ordered, outcomes, errors)


@router.post(
    "/ingest-embeddings",
    openapi_extra=_body(json=IngestBody, lines=IngestLine),
    response_model_exclude_none=True,
)
async def ingest(request: Request, services: ServicesDep, key: Annotated[ApiKey, MAY_ENROLL]) -> IngestAnswer:
    """Add vectors to people, who are found or made by their keys; a vector that a person holds is skipped.

    As one JSON document, of which nothing is stored if there is a picture in it; or as
    `application/x-ndjson`, one person a line, any number of lines: those before a picture are stored.
    """
    kind = media_type(request.headers)
    if kind not in (JSON_MEDIA_TYPE, NDJSON_MEDIA_TYPE):
        detail = f"send the body as {JSON_MEDIA_TYPE} or {NDJSON_MEDIA_TYPE}"
        raise Problem(415, "media-type-unsupported", detail)
    reader = await _Reader.of(services, key.name)
    tally = IngestTally()
    async with ExternalIntake(services.registry.look_alikes, tally) as intake:
        if kind == NDJSON_MEDIA_TYPE:
            await _take_lines(request, reader, intake, tally)
        else:
            raw = await _whole(request)
            await _take(await asyncio.to_thread(reader.of_body, raw), intake, tally)
    return tally.answer()


@dataclass(frozen=True)
class _Reader:
    """From bytes to orders; runs in a thread."""

    dimensions: Mapping[str, int]
    default_space: str
    by: str

    @classmethod
    async def of(cls, services: Services, by: str) -> "_Reader":
        dimensions = await services.registry.spaces.dimensions()
        return cls(dimensions, default_space(services.settings, "face"), by)

    def of_body(self, raw: bytes) -> list[ItemChange | ItemError]:
        return [self._ordered(item) for item in read_ingest(raw)]

    def of_lines(self, batch: Sequence[tuple[int, bytes | None]]) -> list[ItemChange | ItemError]:
        return [self._ordered(read_line(number, line)) for number, line in batch]

    def _ordered(self, item: Read[PersonFaces]) -> ItemChange | ItemError:
        if isinstance(item, ItemError):
            return item
        return to_ingest_order(item, self.dimensions, self.default_space, self.by, new_external_user_id)


async def _take(items: Sequence[ItemChange | ItemError], intake: ExternalIntake, tally: IngestTally) -> None:
    ordered = []
    for item in items:
        if isinstance(item, ItemError):
            tally.errors.add(item)
        else:
            ordered.append(item)
    for batch in batches(ordered):
        await intake.put(batch)


async def _take_lines(request: Request, reader: _Reader, intake: ExternalIntake, tally: IngestTally) -> None:
    try:
        async for batch in lines(request.stream(), LINE_MAX_BYTES, BATCH_ORDERS, _BATCH_BYTES):
            await _take(await asyncio.to_thread(reader.of_lines, batch), intake, tally)
    except ClientDisconnect as error:
        raise _gone() from error


async def _whole(request: Request) -> bytes:
    try:
        return await request.body()
    except ClientDisconnect as error:
        raise _gone() from error


def _gone() -> Problem:
    return Problem(400, "request-unreadable", "the body ended before its time")


@router.get("/external", dependencies=[MAY_FOLLOW_WORK])
async def list_external(
    services: ServicesDep,
    source_system: Annotated[SourceSystem | None, Query(description="Only people of this source")] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> ExternalPage:
    """People whom other systems have brought, a row per key, in order of user id."""
    first, begun = _position(cursor)
    people = await services.registry.identities.page_external(source_system, first=first, limit=limit + 2)
    places = [
        (person, number, external)
        for person in people
        for number, external in enumerate(person.external)
        if source_system in (None, external.source_system) and (person.user_id, number) >= (first, begun)
    ]
    shown = places[:limit]
    following = to_cursor(shown[-1][0].user_id, str(shown[-1][1] + 1)) if len(places) > limit else None
    return ExternalPage(identities=[_row(person, key) for person, _, key in shown], next_cursor=following)


def _position(cursor: str | None) -> tuple[str, int]:
    """The user id at which a page begins, and the number of its keys that were shown."""
    user_id, shown = from_cursor(cursor, 2) or ("", "0")
    if not re.fullmatch(r"[0-9]{1,6}", shown):
        raise cursor_invalid()
    return user_id, int(shown)


def _row(person: Identity, external: ExternalKey) -> ExternalRow:
    return ExternalRow(
        identity_id=person.user_id,
        external_id=external.external_id,
        source_system=external.source_system,
        name=person.display_name,
        embedding_count=sum(held.digest.count for held in person.holdings),
        first_seen=person.created_at,
        last_seen=person.updated_at,
    )
