"""From what sources hand in to orders to the registry, cut into batches that it takes well."""

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

from .items import ItemPosition, ParsedItem, refused
from .views import FaceBody, ItemError, PersonFaces, SyncItem

BATCH_ORDERS = 500
BATCH_VECTORS = 1000
"""The vectors of a batch are compared with each other: a matrix of so many rows and columns."""


@dataclass(frozen=True)
class ItemChange:
    """An item as an order to the registry."""

    place: ItemPosition
    external: ExternalKey
    order: IdentityChange

    @property
    def vectors(self) -> int:
        return len(self.order.templates) if isinstance(self.order, EnrollIdentity) else 0

    def refused(self, error: ContractError) -> ItemError:
        return refused(self.place, error.code, error.detail, {"external_id": self.external.external_id})


def new_external_user_id() -> str:
    """A user id that says nothing about its person, nor about the source that brought them."""
    return f"EXT-{secrets.token_hex(5)}"


def to_sync_order(handed: ParsedItem[SyncItem], by: str, new_user_id: Callable[[], str]) -> ItemChange:
    """Rename, make or delete the person of a key."""
    external = ExternalKey(handed.source_system, handed.item.external_id)
    order: IdentityChange
    if handed.item.action == "delete":
        order = DeleteIdentity(external=external, by=by)
    else:
        order = EnrollIdentity(new_user_id(), display_name=handed.item.name, external=external, by=by)
    return ItemChange(handed.place, external, order)


def to_ingest_order(
    handed: ParsedItem[PersonFaces],
    dimensions: Mapping[str, int],
    default_space: str,
    by: str,
    new_user_id: Callable[[], str],
) -> ItemChange | ItemError:
    """Add faces to the person of a key. Raises Problem `picture-refused`."""
    external = ExternalKey(handed.source_system, handed.item.external_id)
    space = handed.space or default_space
    try:
        if space not in dimensions:
            raise SpaceRegistry.unknown(space, dimensions)
        templates = tuple(
            _template(place, face, space, dimensions[space], handed)
            for place, face in enumerate(handed.item.faces)
        )
    except ContractError as error:
        return refused(handed.place, error.code, error.detail, {"external_id": external.external_id})
    order = EnrollIdentity(
        new_user_id(),
        templates,
        # An empty name would clear one that is there.
        display_name=handed.item.name or None,
        external=external,
        by=by,
    )
    return ItemChange(handed.place, external, order)


def _template(
    place: int, face: FaceBody, space: str, dimension: int, handed: ParsedItem[PersonFaces]
) -> Template:
    try:
        vector = to_vector(face.embedding, face.vector, dimension)
    except ContractError as error:
        if face.vector is not None and holds_image(face.vector):
            raise ImageIndicator(f"{handed.place}.faces.{place}.vector", "image").problem() from error
        raise ContractError(VECTOR_INVALID, f"faces.{place}: {error.detail}") from error
    return Template(space, vector, face.confidence, source=handed.source_system)


def batches(items: Sequence[ItemChange]) -> Iterator[Sequence[ItemChange]]:
    """`items` in their order, at most so many orders and vectors at once (but one item at least)."""
    start = vectors = 0
    for place, item in enumerate(items):
        full = place - start == BATCH_ORDERS or vectors + item.vectors > BATCH_VECTORS
        if full and place > start:
            yield items[start:place]
            start, vectors = place, 0
        vectors += item.vectors
    if start < len(items):
        yield items[start:]
