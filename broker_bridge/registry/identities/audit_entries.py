"""Make audit entries of changes of identities.

An entry has the changed fields, never a name, a vector or a key.
"""

from datetime import datetime

from broker_bridge.registry.audit import AuditEntry
from broker_bridge.registry.mongo.client import Document

from .model import DeleteIdentity, Identity
from .outcome import ChangeOutcome


def to_audit_entry(outcome: ChangeOutcome, now: datetime) -> AuditEntry:
    """Return the audit entry of a change that was applied."""
    change, before, after = outcome.change, outcome.before, outcome.result()
    if isinstance(change, DeleteIdentity):
        return AuditEntry(who=change.by, what="person.deleted", subject=after.user_id, at=now)
    live_before = None if before is None or before.deleted else before
    what = "person.changed" if live_before else "person.enrolled"
    details = _changed_fields(live_before, after)
    if outcome.added:
        details["templates_added"] = outcome.added
    details |= change.audit_details
    return AuditEntry(who=change.by, what=what, subject=after.user_id, at=now, after=details or None)


def _changed_fields(before: Identity | None, after: Identity) -> Document:
    """Return the fields that differ; of a name and of keys only that they differ."""
    details: Document = {}
    for field in ("flag", "kind"):
        if getattr(after, field) != (getattr(before, field) if before else None):
            details[field] = getattr(after, field)
    if before is None or before.sites != after.sites:
        details["sites"] = list(after.sites)
    if before is None or before.consent != after.consent:
        details["consent"] = dict(after.consent)
    hidden = []
    if after.display_name != (before.display_name if before else None):
        hidden.append("display_name")
    if after.external != (before.external if before else ()):
        hidden.append("external")
    return {**details, "fields": hidden} if hidden else details
