"""From request bodies to orders to the registry, and from people to what is shown of them."""

from collections.abc import Mapping, Sequence

import numpy as np

from broker_bridge.contract.embeddings import from_base64, normalise, to_array
from broker_bridge.contract.errors import SPACE_UNKNOWN, VECTOR_INVALID, ContractError
from broker_bridge.registry.devices.devices import AppliedVersion
from broker_bridge.registry.identities.model import EVERY_SITE, EnrollIdentity, Identity, Template
from broker_bridge.registry.identities.template_notes import TemplateNote
from broker_bridge.registry.mongo.versions import History
from dashboard_api.identities.views import (
    Confirmations,
    ExternalKeyView,
    IdentityBody,
    IdentityDetail,
    IdentityPatch,
    IdentityRow,
    IdentityView,
    TemplateBody,
    TemplateCountView,
    TemplateView,
)
from dashboard_api.settings import ApiSettings, Modality


def default_space(settings: ApiSettings, modality: Modality) -> str:
    """The space of vectors that name only their modality; raises ContractError(`space-unknown`)."""
    space = settings.default_spaces.get(modality)
    if space is None:
        raise ContractError(SPACE_UNKNOWN, f"no default space is configured for {modality}")
    return space


def to_template(body: TemplateBody, dimensions: dict[str, int], source: str) -> Template:
    """A template with its vector brought to unit length; raises ContractError."""
    dimension = dimensions.get(body.space)
    if dimension is None:
        known = ", ".join(sorted(dimensions)) or "none"
        raise ContractError(SPACE_UNKNOWN, f"there is no embedding space {body.space!r}; known are: {known}")
    if (body.vector is None) == (body.embedding is None):
        raise ContractError(
            VECTOR_INVALID, "a template has either a vector (base64) or an embedding (numbers)"
        )
    vector = to_vector(body.embedding, body.vector, dimension)
    return Template(body.space, vector, body.quality, source)


def to_vector(embedding: Sequence[float] | None, vector: str | None, dimension: int) -> bytes:
    """Stored bytes of a vector that came as numbers, or else as base64; raises ContractError."""
    if embedding is None:
        values = to_array(from_base64(vector or ""))
    else:
        # As float32 first, as on the wire: else the same vector, sent in both forms, would be two templates.
        with np.errstate(over="ignore"):
            values = np.asarray(embedding, dtype=np.float32)
    return normalise(values, dimension)


def to_order(body: IdentityBody, templates: Sequence[Template], by: str) -> EnrollIdentity:
    return EnrollIdentity(
        body.user_id,
        templates=tuple(templates),
        display_name=body.display_name,
        flag=body.flag,
        sites=None if body.sites is None else tuple(body.sites),
        consent=_consent(body.consent),
        by=by,
    )


def to_patch(user_id: str, body: IdentityPatch, by: str) -> EnrollIdentity:
    """As in JSON Merge Patch (RFC 7396): a field that is null is cleared, one that is absent stays."""
    said = body.model_fields_set
    return EnrollIdentity(
        user_id,
        display_name=(body.display_name or "") if "display_name" in said else None,
        flag=(body.flag or "") if "flag" in said else None,
        sites=tuple(body.sites or ()) if "sites" in said else None,
        consent=_consent(body.consent),
        must_exist=True,
        by=by,
    )


def _consent(said: Mapping[Modality, bool] | None) -> dict[str, bool] | None:
    return None if said is None else {str(modality): given for modality, given in said.items()}


def to_view(person: Identity) -> IdentityView:
    return IdentityView(
        user_id=person.user_id,
        version=person.version,
        display_name=person.display_name,
        flag=person.flag,
        kind=person.kind,
        sites=list(person.sites),
        templates=[TemplateCountView(space=held.space, count=held.digest.count) for held in person.holdings],
        consent=dict(person.consent),
        external=[
            ExternalKeyView(source_system=key.source_system, external_id=key.external_id)
            for key in person.external
        ],
        merged_into=person.merge.into if person.merge else None,
        deleted=person.deleted,
        erased=person.erased,
        created_at=person.created_at,
        updated_at=person.updated_at,
    )


def to_detail(person: Identity, notes: Sequence[TemplateNote], merged: Sequence[str]) -> IdentityDetail:
    shown = [
        TemplateView(
            template_id=note.template_id,
            space=note.space,
            quality=note.quality,
            source=note.source,
            created_at=note.created_at,
        )
        for note in notes
    ]
    return IdentityDetail(
        **to_view(person).model_dump(), template_list=[] if person.deleted else shown, merged=list(merged)
    )


def to_rows(person: Identity, notes: Sequence[TemplateNote], dimensions: dict[str, int]) -> list[IdentityRow]:
    """A person's rows as seed 000 lists them: the newest template of each modality speaks for it."""
    newest = {note.space.partition(":")[0]: note for note in notes}
    return [
        IdentityRow(
            name=person.user_id,
            modality=modality,
            embedding_dim=dimensions[note.space],
            source_node=note.source,
            created_at=person.created_at,
            updated_at=note.created_at,
        )
        for modality, note in sorted(newest.items())
    ]


def confirmations(person: Identity, history: History, applied: Sequence[AppliedVersion]) -> Confirmations:
    """Who of `applied`, the devices of all sites that ever had the person, holds the last change."""
    confirmed = [one.device_id for one in applied if one.confirms(history.epoch, person.version)]
    waiting = [one.device_id for one in applied if not one.confirms(history.epoch, person.version)]
    return Confirmations(
        user_id=person.user_id,
        version=person.version,
        deleted=person.deleted,
        confirmed=confirmed,
        waiting=waiting,
        confirmed_count=len(confirmed),
        device_count=len(applied),
        summary=f"{len(confirmed)} of {len(applied)} devices",
    )


def sites_to_ask(person: Identity) -> tuple[str, ...] | None:
    """The sites whose devices must confirm; None means all."""
    return None if EVERY_SITE in person.synced_sites else person.synced_sites
