"""Count the results of a source's request and keep its first errors."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from broker_bridge.registry.identities.model import EnrollIdentity
from broker_bridge.registry.identities.outcome import ChangeOutcome
from broker_bridge.registry.matching.look_alikes import CheckedChange

from .changes import ItemChange
from .views import MAX_LISTED, IngestAnswer, ItemError, LookAlikeView, SyncAnswer


@dataclass
class ItemErrors:
    """Rejected items: all are counted, the first are kept."""

    count: int = 0
    listed: list[ItemError] = field(default_factory=list)

    def add(self, error: ItemError) -> None:
        self.count += 1
        if len(self.listed) < MAX_LISTED:
            self.listed.append(error)


def to_sync_answer(
    items: Sequence[ItemChange], outcomes: Sequence[ChangeOutcome], errors: ItemErrors
) -> SyncAnswer:
    """Return the answer to a sync; unchanged identities are not counted."""
    created = updated = deleted = 0
    for item, outcome in zip(items, outcomes, strict=True):
        if outcome.error:
            errors.add(item.rejected(outcome.error))
        elif not isinstance(item.change, EnrollIdentity):
            deleted += 1
        elif outcome.created:
            created += 1
        else:
            updated += outcome.changed
    listed = sorted(errors.listed, key=lambda error: error.index or 0)
    return SyncAnswer(
        created=created, updated=updated, deleted=deleted, errors=listed, error_count=errors.count
    )


@dataclass
class IngestTally:
    """The results of an ingest so far."""

    errors: ItemErrors = field(default_factory=ItemErrors)
    identities: int = 0
    stored: int = 0
    skipped: int = 0
    look_alikes: list[LookAlikeView] = field(default_factory=list)
    look_alike_count: int = 0
    not_compared: set[str] = field(default_factory=set)

    def add(self, item: ItemChange, checked: CheckedChange) -> None:
        outcome = checked.outcome
        if outcome.error:
            self.errors.add(item.rejected(outcome.error))
        else:
            self.identities += 1
            self.stored += outcome.added
            self.skipped += item.vectors - outcome.added
            self.not_compared.update(checked.not_compared)
        for look_alike in checked.look_alikes:
            self.look_alike_count += 1
            if len(self.look_alikes) < MAX_LISTED:
                self.look_alikes.append(
                    LookAlikeView(
                        user_id=outcome.identity.user_id if outcome.identity else None,
                        external_id=item.external.external_id,
                        nearest_user_id=look_alike.user_id,
                        similarity=look_alike.similarity,
                        space=look_alike.space,
                    )
                )

    def to_answer(self) -> IngestAnswer:
        return IngestAnswer(
            identities_resolved=self.identities,
            embeddings_stored=self.stored,
            embeddings_skipped=self.skipped,
            errors=sorted(self.errors.listed, key=lambda error: error.line or error.index or 0),
            error_count=self.errors.count,
            look_alikes=self.look_alikes,
            look_alike_count=self.look_alike_count,
            not_compared=sorted(self.not_compared),
        )
