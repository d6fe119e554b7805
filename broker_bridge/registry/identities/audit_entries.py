"""What the audit says of a change of a person: what has changed, never a name, a vector or a key."""

from datetime import datetime

from broker_bridge.registry.audit import AuditEntry
from broker_bridge.registry.mongo.client import Document

from .model import DeleteIdentity, Identity, IdentityChange


def entry(
    order: IdentityChange, before: Identity | None, after: Identity, added: int, now: datetime
) -> AuditEntry:
    """The entry of an order that was carried out, of which `added` templates came."""
    if isinstance(order, DeleteIdentity):
        return AuditEntry(who=order.by, what="person.deleted", subject=after.user_id, at=now)
    begun = before is None or before.deleted
    what = "person.enrolled" if begun else "person.changed"
    said = _difference(None if begun else before, after)
    if added:
        said["templates_added"] = added
    return AuditEntry(
        who=order.by, what=what, subject=after.user_id, at=now, after={**said, **order.audit_details} or None
    )


def _difference(before: Identity | None, after: Identity) -> Document:
    """The fields that an order has changed. Of a name and a key it says only that."""
    said: Document = {}
    for field in ("flag", "kind"):
        if getattr(after, field) != (getattr(before, field) if before else None):
            said[field] = getattr(after, field)
    if before is None or before.sites != after.sites:
        said["sites"] = list(after.sites)
    if before is None or before.consent != after.consent:
        said["consent"] = dict(after.consent)
    hidden = [
        field
        for field, is_other in {
            "display_name": after.display_name != (before.display_name if before else None),
            "external": after.external != (before.external if before else ()),
        }.items()
        if is_other
    ]
    return {**said, "fields": hidden} if hidden else said
