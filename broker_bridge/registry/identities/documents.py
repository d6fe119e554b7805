"""People and templates as MongoDB keeps them. Vectors are BSON float32 vectors."""

from datetime import datetime
from typing import Any

from bson.binary import VECTOR_SUBTYPE, Binary

from broker_bridge.contract.digest import Digest
from broker_bridge.registry.mongo.client import Document

from .model import ExternalKey, Identity, IdentityMerge, Template, TemplateCount, modality_of

# BSON vector header: element type float32, no padding (BSON specification, binary subtype 9).
FLOAT32_HEADER = b"\x27\x00"


def person_to_document(person: Identity) -> Document:
    document: Document = {
        "_id": person.user_id,
        "version": person.version,
        "sites": list(person.sites),
        "reach": list(person.synced_sites),
        "holdings": [
            {"space": held.space, "count": held.digest.count, "digest": held.digest.hex}
            for held in person.holdings
        ],
        "display_name": person.display_name,
        "flag": person.flag,
        "kind": person.kind,
        "deleted": person.deleted,
        "deleted_at": person.deleted_at,
        "created_at": person.created_at,
        "updated_at": person.updated_at,
        "born": person.created_version,
        "consent": dict(person.consent),
    }
    # Left out where there is none: the unique index of external keys takes no notice of those then.
    if person.external:
        document["external"] = [key.text for key in person.external]
    if person.merge:
        document["merge"] = {
            "into": person.merge.into,
            "external": [key.text for key in person.merge.external],
            "sites_before": list(person.merge.sites_before),
            "consent_before": dict(person.merge.consent_before),
        }
    if person.erased:
        document["erased"] = True
    return document


def person_from_document(found: Document) -> Identity:
    """Fields that came later are absent in people who have not changed since."""
    return Identity(
        user_id=found["_id"],
        version=found["version"],
        sites=tuple(found["sites"]),
        synced_sites=tuple(found["reach"]),
        holdings=tuple(
            TemplateCount(held["space"], Digest(held["count"], int(held["digest"], 16)))
            for held in found["holdings"]
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
        consent=found["consent"] if "consent" in found else _settled(found),
        merge=_merge(found["merge"]) if "merge" in found else None,
        erased=found.get("erased", False),
    )


def _settled(found: Document) -> dict[str, bool]:
    """The consent of somebody from before there was a choice: what they held was sent."""
    return {modality_of(held["space"]): True for held in found["holdings"]}


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
        vector=bytes(found["vector"])[len(FLOAT32_HEADER) :],
        quality=found["quality"],
        source=found["source"],
        template_id=found["_id"],
        created_at=found["created_at"],
        merged_from=found.get("merged_from"),
        superseded_by=found.get("parked_by"),
    )
