"""Apply changes of identities, each to the result of those before it.

No I/O.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime

from broker_bridge.contract.embeddings import check_vector
from broker_bridge.contract.errors import ContractError
from broker_bridge.registry.spaces import SpaceRegistry

from .model import DeleteIdentity, Identity, IdentityChange, IdentityRecord
from .outcome import ChangeOutcome
from .rules import Rules, apply_enrollment, check_size, identity_unknown, make_tombstone


def possible_user_ids(changes: Sequence[IdentityChange], user_id_by_key: Mapping[str, str]) -> list[set[str]]:
    """Return the user ids that each change may concern.

    `user_id_by_key` has the holders of external keys. A key without a holder may go to any user id that a
    change of the batch names with it, since changes before it may fail.
    """
    claimants: dict[str, set[str]] = {}
    for change in changes:
        if change.external and change.external.text not in user_id_by_key:
            claimants.setdefault(change.external.text, set()).add(change.user_id)
    return [
        {change.user_id}
        if change.external is None
        else claimants.get(change.external.text) or {user_id_by_key[change.external.text]}
        for change in changes
    ]


def user_ids_needing_templates(
    changes: Sequence[IdentityChange],
    user_ids: Sequence[set[str]],
    identities: Mapping[str, Identity],
) -> list[str]:
    """Return the known user ids with templates that the changes may concern.

    `user_ids` are the possible user ids of each change. An identity that two changes name may be deleted and
    enrolled again.
    """
    mentions = Counter(user_id for possible in user_ids for user_id in possible)
    return sorted(
        {
            user_id
            for change, possible in zip(changes, user_ids, strict=True)
            for user_id in possible
            if user_id in identities
            and (mentions[user_id] > 1 or _concerns_templates(change, identities[user_id]))
        }
    )


def _concerns_templates(change: IdentityChange, known: Identity) -> bool:
    if isinstance(change, DeleteIdentity):
        return False
    return bool(change.templates or change.replace_modality or known.deleted)


class ChangeBatch:
    """The records of a batch as they stand after the changes applied so far."""

    def __init__(
        self,
        records: Mapping[str, IdentityRecord],
        user_id_by_key: Mapping[str, str],
        dimensions: Mapping[str, int],
        rules: Rules,
    ) -> None:
        self.records = dict(records)
        self._user_id_by_key = dict(user_id_by_key)
        self._dimensions = dimensions
        self._rules = rules

    def apply(self, change: IdentityChange, version: int, now: datetime) -> ChangeOutcome:
        """Apply one change and return its outcome.

        A refused change has its ContractError as outcome and changes nothing.
        """
        key = change.external.text if change.external else None
        user_id = change.user_id if key is None else self._user_id_by_key.get(key, change.user_id)
        before = self.records.get(user_id, IdentityRecord())
        try:
            after = self._record_after(before, change, version, now)
        except ContractError as error:
            return ChangeOutcome(change, error=error, version=version)
        self.records[user_id] = after
        if key is not None:
            self._user_id_by_key[key] = user_id
        added = len(_template_ids(after) - _template_ids(before))
        return ChangeOutcome(change, before.identity, after.identity, None, added, version, after.templates)

    def _record_after(
        self, before: IdentityRecord, change: IdentityChange, version: int, now: datetime
    ) -> IdentityRecord:
        if isinstance(change, DeleteIdentity):
            if before.live is None:
                raise identity_unknown(change.user_id or (change.external.text if change.external else ""))
            return IdentityRecord(make_tombstone(before.live, version, now), before.templates)
        for template in change.templates:
            if template.space not in self._dimensions:
                raise SpaceRegistry.unknown(template.space, self._dimensions)
            check_vector(template.vector, self._dimensions[template.space])
        after = apply_enrollment(before, change, version, now, self._rules)
        if after.identity:
            check_size(after.identity, self._dimensions)
        return after


def _template_ids(record: IdentityRecord) -> set[str]:
    return {template.template_id for template in record.templates or ()}
