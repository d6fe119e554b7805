"""Convert identities and templates to and from MongoDB documents.

Vectors are BSON float32 vectors. Three fields are stored under earlier names: `synced_sites` as `reach`,
`created_version` as `born`, and a template's `superseded_by` as `parked_by`.
"""

from datetime import datetime
from typing import Any

from bson.binary import VECTOR_SUBTYPE, Binary

from broker_bridge.contract.digest import Digest
from broker_bridge.registry.mongo.client import Document

from .model import ExternalKey, Identity, IdentityMerge, Template, TemplateCount, modality_of
from .similar_ids import FIELD as SIMILAR_KEYS
from .similar_ids import similarity_keys

# BSON vector header: element type float32, no padding (BSON specification, binary subtype 9).
FLOAT32_HEADER = b"\x27\x00"


def identity_to_document(identity: Identity) -> Document:
    document: Document = {
        "_id": identity.user_id,
        "version": identity.version,
        "sites": list(identity.sites),
        "reach": list(identity.synced_sites),
        "holdings": [
            {"space": holding.space, "count": holding.digest.count, "digest": holding.digest.hex}
            for holding in identity.holdings
        ],
        "display_name": identity.display_name,
        "flag": identity.flag,
        "kind": identity.kind,
        "deleted": identity.deleted,
        "deleted_at": identity.deleted_at,
        "created_at": identity.created_at,
        "updated_at": identity.updated_at,
        "born": identity.created_version,
        "consent": dict(identity.consent),
        SIMILAR_KEYS: similarity_keys(identity.user_id, identity.external),
    }
    # The sparse unique index of external keys skips documents without the field.
    if identity.external:
        document["external"] = [key.text for key in identity.external]
    if identity.merge:
        document["merge"] = {
            "into": identity.merge.into,
            "external": [key.text for key in identity.merge.external],
            "sites_before": list(identity.merge.sites_before),
            "consent_before": dict(identity.merge.consent_before),
        }
    if identity.erased:
        document["erased"] = True
    return document


def identity_from_document(found: Document) -> Identity:
    """Return the identity of a document.

    Fields added later are absent from documents that were not written since.
    """
    return Identity(
        user_id=found["_id"],
        version=found["version"],
        sites=tuple(found["sites"]),
        synced_sites=tuple(found["reach"]),
        holdings=tuple(
            TemplateCount(holding["space"], Digest(holding["count"], int(holding["digest"], 16)))
            for holding in found["holdings"]
        ),
        display_name=found["display_name"],
        flag=found["flag"],
        kind=found.get("kind", "employee"),
        deleted=found["deleted"],
        deleted_at=found["deleted_at"],
        created_at=found["created_at"],
        updated_at=found["updated_at"],
        created_version=found.get("born", 0),
        external=tuple(ExternalKey.parse(text) for text in found.get("external", ())),
        consent=found["consent"] if "consent" in found else _consent_before_choice(found),
        merge=_merge(found["merge"]) if "merge" in found else None,
        erased=found.get("erased", False),
    )


def _consent_before_choice(found: Document) -> dict[str, bool]:
    """Return the consent of a document from before there was a choice.

    All that it held was sent.
    """
    return {modality_of(holding["space"]): True for holding in found["holdings"]}


def _merge(found: Document) -> IdentityMerge:
    return IdentityMerge(
        into=found["into"],
        external=tuple(ExternalKey.parse(text) for text in found["external"]),
        sites_before=tuple(found["sites_before"]),
        consent_before=found["consent_before"],
    )


def template_to_document(user_id: str, template: Template, now: datetime) -> Document:
    document: Document = {
        "_id": template.template_id,
        "user_id": user_id,
        "space": template.space,
        "vector": Binary(FLOAT32_HEADER + template.vector, VECTOR_SUBTYPE),
        "quality": template.quality,
        "source": template.source,
        "created_at": template.created_at or now,
    }
    if template.merged_from:
        document["merged_from"] = template.merged_from
    if template.superseded_by:
        document["parked_by"] = template.superseded_by
    return document


def template_from_document(found: Any) -> Template:
    return Template(
        space=found["space"],
        vector=found["vector"][len(FLOAT32_HEADER) :],
        quality=found["quality"],
        source=found["source"],
        template_id=found["_id"],
        created_at=found["created_at"],
        merged_from=found.get("merged_from"),
        superseded_by=found.get("parked_by"),
    )
