"""How what sources hand in gets into the registry: while one batch is written, the next is judged."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType

from broker_bridge.registry.identities.model import EnrollIdentity, IdentityChange
from broker_bridge.registry.identities.outcome import ChangeOutcome
from broker_bridge.registry.matching.look_alikes import CheckedChange, LookAlikes

from .requests import ItemChange
from .views import MOST_LISTED, IngestAnswer, ItemError, LookAlikeView, SyncAnswer


@dataclass
class ItemErrors:
    """Items that were refused: all counted, the first ones kept."""

    count: int = 0
    listed: list[ItemError] = field(default_factory=list)

    def add(self, error: ItemError) -> None:
        self.count += 1
        if len(self.listed) < MOST_LISTED:
            self.listed.append(error)


def sync_answer(
    ordered: Sequence[ItemChange], outcomes: Sequence[ChangeOutcome], errors: ItemErrors
) -> SyncAnswer:
    """What became of a sync; who stays as they were counts as nothing."""
    created = updated = deleted = 0
    for item, outcome in zip(ordered, outcomes, strict=True):
        if outcome.error:
            errors.add(item.refused(outcome.error))
        elif not isinstance(item.order, EnrollIdentity):
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
    """What has become of the items so far."""

    errors: ItemErrors = field(default_factory=ItemErrors)
    people: int = 0
    stored: int = 0
    skipped: int = 0
    look_alikes: list[LookAlikeView] = field(default_factory=list)
    look_alike_count: int = 0

    def add(self, item: ItemChange, checked: CheckedChange) -> None:
        outcome = checked.outcome
        if outcome.error:
            self.errors.add(item.refused(outcome.error))
        else:
            self.people += 1
            self.stored += outcome.added
            self.skipped += item.vectors - outcome.added
        for one in checked.look_alikes:
            self.look_alike_count += 1
            if len(self.look_alikes) < MOST_LISTED:
                self.look_alikes.append(
                    LookAlikeView(
                        user_id=outcome.identity.user_id if outcome.identity else None,
                        external_id=item.external.external_id,
                        nearest_user_id=one.user_id,
                        similarity=one.similarity,
                        space=one.space,
                    )
                )

    def answer(self) -> IngestAnswer:
        return IngestAnswer(
            identities_resolved=self.people,
            embeddings_stored=self.stored,
            embeddings_skipped=self.skipped,
            errors=sorted(self.errors.listed, key=lambda error: error.line or error.index or 0),
            error_count=self.errors.count,
            look_alikes=self.look_alikes,
            look_alike_count=self.look_alike_count,
        )


class ExternalIntake:
    """Takes batches in their order. As a context manager it leaves nothing half done behind."""

    def __init__(self, look_alikes: LookAlikes, tally: IngestTally) -> None:
        self._look_alikes = look_alikes
        self._tally = tally
        self._items: Sequence[ItemChange] = ()
        self._pending: list[IdentityChange] = []
        self._writing: asyncio.Task[list[CheckedChange]] | None = None

    async def put(self, items: Sequence[ItemChange]) -> None:
        """Judge a batch, and begin to write it once the one before is written. Raises RegistryError."""
        judged = await self._look_alikes.judge_changes([item.order for item in items], self._pending)
        await self._written()
        self._items = items
        self._pending = [one.order for one in judged if one.error is None]
        self._writing = asyncio.create_task(self._look_alikes.carry_out(judged))

    async def _written(self) -> None:
        writing, self._writing = self._writing, None
        if writing:
            for item, checked in zip(self._items, await writing, strict=True):
                self._tally.add(item, checked)

    async def __aenter__(self) -> "ExternalIntake":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._written()


async def lines(
    chunks: AsyncIterator[bytes], longest: int, batch_lines: int, batch_bytes: int
) -> AsyncIterator[list[tuple[int, bytes | None]]]:
    """Lines with their numbers from 1, in lists of about so many or so many bytes; blank ones are left out.

    None stands for a line of more than `longest` bytes, which is not kept. The last may lack its newline.
    """
    number, size = 0, 0
    parts: list[bytes] = []
    batch: list[tuple[int, bytes | None]] = []
    held = 0
    async for chunk in chunks:
        pieces = chunk.split(b"\n")
        for place, piece in enumerate(pieces):
            size += len(piece)
            if size <= longest:
                parts.append(piece)
            else:
                parts.clear()
            if place == len(pieces) - 1:
                break
            number += 1
            line = b"".join(parts) if size <= longest else None
            if line is None or line.strip():
                batch.append((number, line))
                held += len(line or b"")
            parts.clear()
            size = 0
        if len(batch) >= batch_lines or held >= batch_bytes:
            yield batch
            batch, held = [], 0
    line = b"".join(parts) if size <= longest else None
    if line is None or line.strip():
        batch.append((number + 1, line))
    if batch:
        yield batch
