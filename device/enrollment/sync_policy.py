"""What to do with a head, a delta or a page: pure decisions over where the gallery stands."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from broker_bridge.contract.embeddings import check_vector, to_array
from broker_bridge.contract.errors import ContractError
from broker_bridge.contract.messages import (
    Removal,
    SpaceDigest,
    SpaceHead,
    SyncDelta,
    SyncHead,
    SyncPage,
    Upsert,
    WireError,
)
from broker_bridge.vectors.index import are_units
from device.store.cursor import SnapshotProgress, SyncCursor


class DeltaDecision(Enum):
    APPLY = "apply"
    IGNORE = "ignore"
    REQUEST = "request"


class HeadDecision(Enum):
    CURRENT = "current"
    REQUEST = "request"
    DRIFT = "drift"


class PageDecision(Enum):
    APPLY = "apply"
    BEGIN_RESET = "begin-reset"
    STAGE = "stage"
    SKIP = "skip"
    REQUEST = "request"


def decide_on_delta(cursor: SyncCursor, delta: SyncDelta, *, with_names: bool = False) -> DeltaDecision:
    """APPLY when the delta holds all that is missing: everything of `(prev_version, version]`.

    A device that keeps names (`with_names`) learns from it only that there is something to ask for: names
    travel in pages alone.
    """
    if delta.epoch != cursor.epoch:
        return DeltaDecision.REQUEST
    if delta.version <= cursor.version:
        return DeltaDecision.IGNORE
    if with_names and delta.upserts:
        return DeltaDecision.REQUEST
    return DeltaDecision.APPLY if delta.prev_version <= cursor.version else DeltaDecision.REQUEST


def decide_on_head(cursor: SyncCursor, held: Mapping[str, SpaceDigest], head: SyncHead) -> HeadDecision:
    """DRIFT when the version is the head's and the templates are not; `held` has one entry per space held."""
    if head.epoch != cursor.epoch or head.version != cursor.version:
        return HeadDecision.REQUEST
    nothing = SpaceHead(count=0, digest="0" * 16)
    wanted = {space: head.spaces.get(space, nothing) for space in held}
    same = all(
        (wanted[space].count, wanted[space].digest) == (one.count, one.digest) for space, one in held.items()
    )
    return HeadDecision.CURRENT if same else HeadDecision.DRIFT


def decide_on_page(
    cursor: SyncCursor, staged: SyncCursor | None, since_version: int, page: SyncPage
) -> PageDecision:
    """How an error-free page that answers our request for `since_version` is taken in.

    An answer from zero is a full snapshot whether it says so or not: only staging drops what it names not.
    """
    goes_on = staged and page.epoch == staged.epoch and 0 < page.from_version == staged.version
    if (page.reset and not goes_on) or (staged is None and since_version == 0):
        return PageDecision.BEGIN_RESET
    expected = staged or cursor
    if page.epoch != expected.epoch or page.from_version > expected.version:
        return PageDecision.REQUEST
    if staged is not None:
        return PageDecision.STAGE
    return PageDecision.APPLY if page.to_version > cursor.version else PageDecision.SKIP


def head_of_reset(decision: PageDecision, staged: SnapshotProgress | None, page: SyncPage) -> int | None:
    """The `reset_head_version` to ask with for what follows on `page`; None outside of a reset."""
    if decision is PageDecision.BEGIN_RESET:
        return page.head_version
    return staged.head_version if staged and decision is PageDecision.STAGE else None


def may_swap(asked_at: SyncCursor, cursor: SyncCursor, page: SyncPage) -> bool:
    """Whether the last page of a snapshot ends it; `asked_at` is where the live gallery stood at its request.

    Not while a delta has moved the live gallery past the snapshot: that would undo it for a moment. Unless we
    were past the registry's head when we asked: then the registry itself went back.
    """
    went_back = asked_at.epoch == page.epoch and asked_at.version > page.head_version
    return went_back or cursor.epoch != page.epoch or cursor.version <= page.to_version


@dataclass(frozen=True)
class AppliedChange:
    """What one message changes: people with the templates that we hold, ids that go, a template at fault."""

    upserts: tuple[Upsert, ...]
    removals: tuple[str, ...]
    error: WireError | None = None


def plan_change(
    upserts: Sequence[Upsert], removals: Sequence[Removal], dimensions: Mapping[str, int]
) -> AppliedChange:
    """The change within our spaces (`{space: dimension}`); each person once, at their highest version.

    Templates of other spaces are left out, an unusable vector too: `error` names it, the others apply.
    """
    removed = {one.user_id: one.version for one in removals}
    latest: dict[str, Upsert] = {}
    for upsert in upserts:
        if upsert.version >= max(removed.get(upsert.user_id, 0), _version(latest.get(upsert.user_id))):
            latest[upsert.user_id] = upsert
    kept: list[Upsert] = []
    error = None
    all_fine = _all_usable(latest.values(), dimensions)
    for upsert in latest.values():
        ours, fault = (upsert, None) if all_fine else _usable(upsert, dimensions)
        kept.append(ours)
        error = error or fault
    return AppliedChange(tuple(kept), tuple(user_id for user_id in removed if user_id not in latest), error)


def _all_usable(upserts: Iterable[Upsert], dimensions: Mapping[str, int]) -> bool:
    """A quick look at a whole page: whether there is certainly nothing to leave out."""
    vectors: dict[str, list[bytes]] = {}
    for upsert in upserts:
        for template in upsert.templates:
            if len(template.vector) != 4 * dimensions.get(template.space, 0):
                return False
            vectors.setdefault(template.space, []).append(template.vector)
    return all(are_units(to_array(b"".join(rows)).reshape(len(rows), -1)).all() for rows in vectors.values())


def _version(upsert: Upsert | None) -> int:
    return upsert.version if upsert else 0


def _usable(upsert: Upsert, dimensions: Mapping[str, int]) -> tuple[Upsert, WireError | None]:
    templates = []
    error = None
    for template in upsert.templates:
        if template.space not in dimensions:
            continue
        try:
            check_vector(template.vector, dimensions[template.space])
        except ContractError as fault:
            # The sentence names person and template, never numbers of the vector.
            error = WireError(
                code=fault.code,
                detail=f"template {template.template_id} of {upsert.user_id} was left out ({template.space})",
            )
        else:
            templates.append(template)
    return upsert.model_copy(update={"templates": templates}), error


def moved(cursor: SyncCursor, epoch: str, version: int) -> SyncCursor:
    return replace(cursor, epoch=epoch, version=version)
