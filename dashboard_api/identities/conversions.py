"""Convert bodies into changes for the registry, and identities into views."""

from collections.abc import Mapping, Sequence

import numpy as np

from broker_bridge.contract.embeddings import from_base64, normalise, to_array
from broker_bridge.contract.errors import SPACE_UNKNOWN, VECTOR_INVALID, ContractError
from broker_bridge.registry.devices.model import AppliedVersion
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
    ListedIdentity,
    TemplateBody,
    TemplateCountView,
    TemplateView,
)
from dashboard_api.settings import ApiSettings, Modality


def default_space(settings: ApiSettings, modality: Modality) -> str:
    """Return the configured space of a modality; raise ContractError `space-unknown`."""
    space = settings.default_spaces.get(modality)
    if space is None:
        raise ContractError(SPACE_UNKNOWN, f"no default space is configured for {modality}")
    return space


def to_template(body: TemplateBody, dimensions: dict[str, int], source: str) -> Template:
    """Return a template with a vector of unit length; raise ContractError."""
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
    """Return the stored bytes of a vector given as numbers or as base64.

    The bytes are float32[dimension], little-endian, of unit length. Raises ContractError.
    """
    if embedding is None:
        values = to_array(from_base64(vector or ""))
    else:
        # Converted to float32 first, as on the wire; else one vector sent in both forms makes two templates.
        with np.errstate(over="ignore"):
            values = np.asarray(embedding, dtype=np.float32)
    return normalise(values, dimension)


def to_enrollment(body: IdentityBody, templates: Sequence[Template], by: str) -> EnrollIdentity:
    return EnrollIdentity(
        body.user_id,
        templates=tuple(templates),
        display_name=body.display_name,
        flag=body.flag,
        sites=None if body.sites is None else tuple(body.sites),
        consent=_to_consent(body.consent),
        by=by,
    )


def to_patch(user_id: str, body: IdentityPatch, by: str) -> EnrollIdentity:
    """Return the change of a JSON Merge Patch (RFC 7396).

    A field that is null is cleared, an absent field stays as it is.
    """
    fields = body.model_fields_set
    return EnrollIdentity(
        user_id,
        display_name=(body.display_name or "") if "display_name" in fields else None,
        flag=(body.flag or "") if "flag" in fields else None,
        sites=tuple(body.sites or ()) if "sites" in fields else None,
        consent=_to_consent(body.consent),
        must_exist=True,
        by=by,
    )


def _to_consent(consent: Mapping[Modality, bool] | None) -> dict[str, bool] | None:
    return None if consent is None else {str(modality): given for modality, given in consent.items()}


def to_view(identity: Identity) -> IdentityView:
    return IdentityView(
        user_id=identity.user_id,
        version=identity.version,
        display_name=identity.display_name,
        flag=identity.flag,
        kind=identity.kind,
        sites=list(identity.sites),
        templates=[
            TemplateCountView(space=holding.space, count=holding.digest.count)
            for holding in identity.holdings
        ],
        consent=dict(identity.consent),
        external=[
            ExternalKeyView(source_system=key.source_system, external_id=key.external_id)
            for key in identity.external
        ],
        merged_into=identity.merge.into if identity.merge else None,
        deleted=identity.deleted,
        erased=identity.erased,
        created_at=identity.created_at,
        updated_at=identity.updated_at,
    )


def to_listed(identity: Identity, similar: Mapping[str, list[str]]) -> ListedIdentity:
    """Return an identity of a list; `similar` are similar ids by user id."""
    view = to_view(identity).model_dump()
    return ListedIdentity(**view, similar_ids=similar.get(identity.user_id, []))


def to_detail(
    identity: Identity,
    notes: Sequence[TemplateNote],
    merged: Sequence[str],
    similar: Mapping[str, list[str]],
) -> IdentityDetail:
    templates = [
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
        **to_listed(identity, similar).model_dump(),
        template_list=[] if identity.deleted else templates,
        merged=list(merged),
    )


def to_rows(
    identity: Identity, notes: Sequence[TemplateNote], dimensions: dict[str, int]
) -> list[IdentityRow]:
    """Return one row per modality, as seed 000 lists them, from its newest template."""
    newest = {note.space.partition(":")[0]: note for note in notes}
    return [
        IdentityRow(
            name=identity.user_id,
            modality=modality,
            embedding_dim=dimensions[note.space],
            source_node=note.source,
            created_at=identity.created_at,
            updated_at=note.created_at,
        )
        for modality, note in sorted(newest.items())
    ]


def to_confirmations(
    identity: Identity, history: History, applied: Sequence[AppliedVersion]
) -> Confirmations:
    """Return which devices of `applied` have applied the last change of an identity."""
    confirmed = [device.device_id for device in applied if device.confirms(history.epoch, identity.version)]
    waiting = [device.device_id for device in applied if not device.confirms(history.epoch, identity.version)]
    return Confirmations(
        user_id=identity.user_id,
        version=identity.version,
        deleted=identity.deleted,
        confirmed=confirmed,
        waiting=waiting,
        confirmed_count=len(confirmed),
        device_count=len(applied),
        summary=f"{len(confirmed)} of {len(applied)} devices",
    )


def sites_to_confirm(identity: Identity) -> tuple[str, ...] | None:
    """Return the sites with devices that must confirm; None means all sites."""
    return None if EVERY_SITE in identity.synced_sites else identity.synced_sites
