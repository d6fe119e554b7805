"""Convert items of sources into changes for the registry, in batches."""

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from broker_bridge.contract.errors import VECTOR_INVALID, ContractError
from broker_bridge.registry.identities.model import (
    DeleteIdentity,
    EnrollIdentity,
    ExternalKey,
    IdentityChange,
    Template,
)
from broker_bridge.registry.spaces import SpaceRegistry
from dashboard_api.http.image_indicators import ImageIndicator, holds_image
from dashboard_api.identities.conversions import to_vector

from .items import ItemPosition, ParsedItem, rejected_item
from .views import ExternalFaces, FaceBody, ItemError, SyncItem

BATCH_CHANGES = 500
BATCH_VECTORS = 1000
"""The vectors of a batch are compared with each other: a matrix of so many rows and columns."""


@dataclass(frozen=True)
class ItemChange:
    """The change of one item."""

    position: ItemPosition
    external: ExternalKey
    change: IdentityChange

    @property
    def vectors(self) -> int:
        return len(self.change.templates) if isinstance(self.change, EnrollIdentity) else 0

    def rejected(self, error: ContractError) -> ItemError:
        return _rejected(self.position, self.external, error)


def _rejected(position: ItemPosition, external: ExternalKey, error: ContractError) -> ItemError:
    return rejected_item(position, error.code, error.detail, {"external_id": external.external_id})


def new_external_user_id() -> str:
    """Return a user id that reveals neither the identity nor its source."""
    return f"EXT-{secrets.token_hex(5)}"


def to_sync_change(parsed: ParsedItem[SyncItem], by: str, new_user_id: Callable[[], str]) -> ItemChange:
    """Return the change that enrolls, renames or deletes an external identity."""
    external = ExternalKey(parsed.source_system, parsed.item.external_id)
    change: IdentityChange
    if parsed.item.action == "delete":
        change = DeleteIdentity(external=external, by=by)
    else:
        change = EnrollIdentity(new_user_id(), display_name=parsed.item.name, external=external, by=by)
    return ItemChange(parsed.position, external, change)


def to_ingest_change(
    parsed: ParsedItem[ExternalFaces],
    dimensions: Mapping[str, int],
    default_space: str,
    by: str,
    new_user_id: Callable[[], str],
) -> ItemChange | ItemError:
    """Return the change that adds faces to the identity of an external key.

    Raises Problem `picture-refused`.
    """
    external = ExternalKey(parsed.source_system, parsed.item.external_id)
    space = parsed.space or default_space
    try:
        if space not in dimensions:
            raise SpaceRegistry.unknown(space, dimensions)
        templates = tuple(
            _to_template(index, face, space, dimensions[space], parsed)
            for index, face in enumerate(parsed.item.faces)
        )
    except ContractError as error:
        return _rejected(parsed.position, external, error)
    change = EnrollIdentity(
        new_user_id(),
        templates,
        # An empty name would clear the name on record.
        display_name=parsed.item.name or None,
        external=external,
        by=by,
    )
    return ItemChange(parsed.position, external, change)


def _to_template(
    index: int, face: FaceBody, space: str, dimension: int, parsed: ParsedItem[ExternalFaces]
) -> Template:
    try:
        vector = to_vector(face.embedding, face.vector, dimension)
    except ContractError as error:
        if face.vector is not None and holds_image(face.vector):
            raise ImageIndicator(f"{parsed.position}.faces.{index}.vector", "image").problem() from error
        raise ContractError(VECTOR_INVALID, f"faces.{index}: {error.detail}") from error
    return Template(space, vector, face.confidence, source=parsed.source_system)


def to_batches(items: Sequence[ItemChange]) -> Iterator[Sequence[ItemChange]]:
    """Yield the items in order, in batches of BATCH_CHANGES or BATCH_VECTORS at most.

    A single item with more vectors is a batch of its own.
    """
    start = vectors = 0
    for index, item in enumerate(items):
        is_full = index - start == BATCH_CHANGES or vectors + item.vectors > BATCH_VECTORS
        if is_full and index > start:
            yield items[start:index]
            start, vectors = index, 0
        vectors += item.vectors
    if start < len(items):
        yield items[start:]
