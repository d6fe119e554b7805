"""Routes of `/api/v1/spaces/{space}/migration`: from one space to another."""

from typing import Annotated

from fastapi import APIRouter, Query

from broker_bridge.contract.default_space import DEFAULT_FACE_SPACE
from broker_bridge.contract.errors import SPACE_UNKNOWN
from broker_bridge.contract.ids import SiteId, SpaceId
from broker_bridge.contract.spaces import SpaceRecord
from broker_bridge.registry.identities.model import modality_of
from broker_bridge.registry.space_migration import SpaceMigration
from broker_bridge.registry.spaces import SpaceRegistry
from dashboard_api.http.paging import Cursor, Limit, cut_page, from_cursor, to_cursor
from dashboard_api.http.problems import Problem
from dashboard_api.services.dependencies import SettingsDep, SpaceMigrationDep, SpacesDep
from dashboard_api.services.security import MAY_READ

from .migration_steps import Migration
from .migration_views import MigrationView, MissingPage, to_migration_view, to_missing

router = APIRouter(prefix="/api/v1/spaces/{space}/migration", tags=["spaces"])

OldSpace = Annotated[SpaceId, Query(alias="from", description="The space that `space` replaces.")]
SiteFilter = Annotated[SiteId | None, Query(description="Only identities of this site, or of every site.")]


@router.get("", operation_id="migration_api_v1_spaces__space__migration_get", dependencies=[MAY_READ])
async def show(
    space: SpaceId, old: OldSpace, spaces: SpacesDep, migrations: SpaceMigrationDep, settings: SettingsDep
) -> MigrationView:
    """Show how far the migration to a space is.

    The answer has the people enrolled in either space, the cameras of each site, and the steps in their
    order: a record with limits, the API, the people, the cameras, the removal of the old space.
    """
    new, old_record = await _check_pair(space, old, spaces, migrations)
    state = await migrations.state(old, space)
    is_removed = old_record is None
    if old == DEFAULT_FACE_SPACE.space and not state.in_both + state.only_old:
        # The record of the built-in model is made again at each start.
        is_removed = await migrations.was_removed(old)
    defaults = settings.default_spaces.values()
    api_space = next((one for one in defaults if modality_of(one) == modality_of(space)), None)
    photos = settings.photos
    return to_migration_view(Migration(old, new, state, api_space, is_removed, enrolls_photos=photos))


@router.get(
    "/missing",
    operation_id="missing_api_v1_spaces__space__migration_missing_get",
    dependencies=[MAY_READ],
)
async def list_missing(
    *,
    space: SpaceId,
    old: OldSpace,
    spaces: SpacesDep,
    migrations: SpaceMigrationDep,
    site: SiteFilter = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> MissingPage:
    """List identities of the old space that have no template in the new one.

    Their keys of other systems tell which can be enrolled again from a source. Identities without consent
    are left out.
    """
    await _check_pair(space, old, spaces, migrations)
    after = from_cursor(cursor, 1) or [""]
    found = await migrations.page_missing(old, space, site_id=site, after=after[0], limit=limit + 1)
    page, next_cursor = cut_page(found, limit, lambda last: to_cursor(last.user_id))
    return MissingPage(items=[to_missing(identity) for identity in page], next_cursor=next_cursor)


async def _check_pair(
    new: str, old: str, spaces: SpaceRegistry, migrations: SpaceMigration
) -> tuple[SpaceRecord, SpaceRecord | None]:
    """Return the records of both spaces, None for an old one that was removed.

    Raises Problem.
    """
    if new == old:
        raise Problem(422, "request-invalid", f"from: {old} cannot replace itself: name another space")
    if modality_of(new) != modality_of(old):
        detail = f"from: {old} and {new} are of different modalities: name two spaces of one"
        raise Problem(422, "request-invalid", detail)
    records = await spaces.records()
    if new not in records:
        raise Problem(404, SPACE_UNKNOWN, spaces.unknown(new, records).detail)
    if old not in records and not await migrations.was_removed(old):
        raise Problem(422, SPACE_UNKNOWN, f"from: {spaces.unknown(old, records).detail}")
    return records[new], records.get(old)
