"""`/api/v1/identity/`, as seed 000 has it: one embedding per name and modality; its name is our user id."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter

from broker_bridge.contract.embeddings import normalise
from broker_bridge.contract.ids import UserId
from broker_bridge.registry import Registry
from broker_bridge.registry.api_keys import ApiKey
from broker_bridge.registry.identities.model import EnrollIdentity, Identity, Template
from dashboard_api.http.json_bodies import JSON_BODY
from dashboard_api.identities.conversions import default_space, to_rows
from dashboard_api.identities.enrollment_views import IdentityPushed, resemblances
from dashboard_api.identities.views import IdentityChangeView, IdentityPush, IdentityRow
from dashboard_api.services.security import MAY_CHANGE, MAY_ENROLL, MAY_READ
from dashboard_api.services.services import ServicesDep
from dashboard_api.settings import Modality

router = APIRouter(prefix="/api/v1/identity", tags=["identity (seed 000)"])
_AT_ONCE = 1000


@router.get("", include_in_schema=False, dependencies=[MAY_READ])
@router.get("/", dependencies=[MAY_READ])
async def list_all(services: ServicesDep) -> list[IdentityRow]:
    """All identities with metadata. `created_at` is the person's, `updated_at` the embedding's."""
    dimensions = await services.registry.spaces.dimensions()
    rows: list[IdentityRow] = []
    async for people in _everyone(services.registry):
        notes = await services.overview.template_notes([person.user_id for person in people])
        for person in people:
            rows += to_rows(person, notes.get(person.user_id, []), dimensions)
    return rows


@router.get("/names", dependencies=[MAY_READ])
async def names(services: ServicesDep) -> dict[str, list[str]]:
    """The names of each modality."""
    manifest: dict[str, list[str]] = {modality: [] for modality in services.settings.default_spaces}
    async for people in _everyone(services.registry):
        for person in people:
            for modality in sorted({held.space.partition(":")[0] for held in person.holdings}):
                manifest.setdefault(modality, []).append(person.user_id)
    return manifest


@router.post("", include_in_schema=False, dependencies=[JSON_BODY])
@router.post("/", dependencies=[JSON_BODY])
async def push(
    body: IdentityPush, services: ServicesDep, key: Annotated[ApiKey, MAY_ENROLL]
) -> IdentityPushed:
    """Add a person's embedding, or replace that modality's, at every site unless the person has sites."""
    space = await services.registry.spaces.get(default_space(services.settings, body.modality))
    template = Template(space.id, normalise(body.embedding, space.dimension), source=body.source_node)
    order = EnrollIdentity(body.name, templates=(template,), replace_modality=body.modality, by=key.name)
    checked = await services.registry.look_alikes.enroll(order)
    return IdentityPushed(
        name=body.name,
        modality=body.modality,
        version=checked.outcome.result().version,
        look_alikes=resemblances(checked.look_alikes),
    )


@router.delete("/{name}/{modality}")
async def delete_modality(
    name: UserId, modality: Modality, services: ServicesDep, key: Annotated[ApiKey, MAY_CHANGE]
) -> IdentityChangeView:
    """Drop a person's embeddings of one modality; the person stays."""
    person = await services.registry.identities.remove_modality(name, modality, by=key.name)
    return IdentityChangeView(name=name, modality=modality, version=person.version)


@router.delete("/{name}")
async def delete(
    name: UserId, services: ServicesDep, key: Annotated[ApiKey, MAY_CHANGE]
) -> IdentityChangeView:
    """Soft-delete the person with all modalities."""
    person = await services.registry.identities.delete(name, by=key.name)
    return IdentityChangeView(name=name, modality=None, version=person.version)


async def _everyone(registry: Registry) -> AsyncIterator[list[Identity]]:
    after = ""
    while people := await registry.identities.page(after=after, limit=_AT_ONCE):
        yield people
        after = people[-1].user_id
