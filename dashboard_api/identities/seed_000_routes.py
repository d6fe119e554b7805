"""Routes of `/api/v1/identity/` (seed 000): one embedding per name and modality.

The seed's name is the user id.
"""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter

from broker_bridge.contract.embeddings import normalise
from broker_bridge.registry.api_keys import ApiKey
from broker_bridge.registry.identities.model import EnrollIdentity, Identity, Template
from broker_bridge.registry.identities.service import Identities
from dashboard_api.http.base_models import UserId
from dashboard_api.http.json_bodies import JSON_BODY
from dashboard_api.identities.conversions import default_space, to_rows
from dashboard_api.identities.enrollment_views import IdentityPushed, to_look_alike_notes
from dashboard_api.identities.views import IdentityChangeView, IdentityPush, IdentityRow
from dashboard_api.services.dependencies import (
    IdentitiesDep,
    LookAlikesDep,
    OverviewDep,
    SettingsDep,
    SpacesDep,
)
from dashboard_api.services.security import MAY_CHANGE, MAY_ENROLL, MAY_READ
from dashboard_api.settings import Modality

router = APIRouter(prefix="/api/v1/identity", tags=["identity (seed 000)"])
_BATCH_SIZE = 1000


# The operation ids are what generated clients call the operations by.
@router.get("", operation_id="list_all_api_v1_identity__get", dependencies=[MAY_READ])
@router.get("/", include_in_schema=False, dependencies=[MAY_READ])
async def list_all(identities: IdentitiesDep, spaces: SpacesDep, overview: OverviewDep) -> list[IdentityRow]:
    """List all identities with metadata.

    `created_at` is the time of the identity, `updated_at` that of the embedding.
    """
    dimensions = await spaces.dimensions()
    rows: list[IdentityRow] = []
    async for batch in _batches(identities):
        notes = await overview.template_notes([identity.user_id for identity in batch])
        for identity in batch:
            rows += to_rows(identity, notes.get(identity.user_id, []), dimensions)
    return rows


@router.get("/names", dependencies=[MAY_READ])
async def names(identities: IdentitiesDep, settings: SettingsDep) -> dict[str, list[str]]:
    """List the names of each modality."""
    names_by_modality: dict[str, list[str]] = {modality: [] for modality in settings.default_spaces}
    async for batch in _batches(identities):
        for identity in batch:
            modalities = {holding.space.partition(":")[0] for holding in identity.holdings}
            for modality in sorted(modalities):
                names_by_modality.setdefault(modality, []).append(identity.user_id)
    return names_by_modality


@router.post("", operation_id="push_api_v1_identity__post", dependencies=[JSON_BODY])
@router.post("/", include_in_schema=False, dependencies=[JSON_BODY])
async def push(
    body: IdentityPush,
    look_alikes: LookAlikesDep,
    spaces: SpacesDep,
    settings: SettingsDep,
    key: Annotated[ApiKey, MAY_ENROLL],
) -> IdentityPushed:
    """Add an embedding, or replace the one of its modality.

    An identity without sites belongs to every site.
    """
    space = await spaces.get(default_space(settings, body.modality))
    template = Template(space.id, normalise(body.embedding, space.dimension), source=body.source_node)
    change = EnrollIdentity(body.name, templates=(template,), replace_modality=body.modality, by=key.name)
    checked = await look_alikes.enroll(change)
    return IdentityPushed(
        name=body.name,
        modality=body.modality,
        version=checked.outcome.result().version,
        look_alikes=to_look_alike_notes(checked.look_alikes),
        not_compared=list(checked.not_compared),
    )


@router.delete("/{name}/{modality}")
async def delete_modality(
    name: UserId, modality: Modality, identities: IdentitiesDep, key: Annotated[ApiKey, MAY_CHANGE]
) -> IdentityChangeView:
    """Remove the embeddings of one modality; the identity stays."""
    identity = await identities.remove_modality(name, modality, by=key.name)
    return IdentityChangeView(name=name, modality=modality, version=identity.version)


@router.delete("/{name}")
async def delete(
    name: UserId, identities: IdentitiesDep, key: Annotated[ApiKey, MAY_CHANGE]
) -> IdentityChangeView:
    """Soft-delete the identity with all modalities."""
    identity = await identities.delete(name, by=key.name)
    return IdentityChangeView(name=name, modality=None, version=identity.version)


async def _batches(identities: Identities) -> AsyncIterator[list[Identity]]:
    after = ""
    while batch := await identities.page(after=after, limit=_BATCH_SIZE):
        yield batch
        after = batch[-1].user_id
