"""The changes of a message for this device, without unusable vectors."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from broker_bridge.contract.embeddings import check_vector, to_array
from broker_bridge.contract.errors import ContractError
from broker_bridge.contract.messages import Removal, Upsert, WireError
from broker_bridge.vectors.index import are_units


@dataclass(frozen=True)
class AppliedChange:
    """The identities to write and the user ids to remove.

    `error` names a template that was left out.
    """

    upserts: tuple[Upsert, ...]
    removals: tuple[str, ...]
    error: WireError | None = None


def plan_change(
    upserts: Sequence[Upsert], removals: Sequence[Removal], dimensions: Mapping[str, int]
) -> AppliedChange:
    """Return the change within the device's spaces (`{space: dimension}`).

    Each identity occurs once, at its highest version. Templates of other spaces are left out, and so are
    unusable vectors: `error` names the first of them, the other templates apply.
    """
    removed = {removal.user_id: removal.version for removal in removals}
    latest: dict[str, Upsert] = {}
    for upsert in upserts:
        if upsert.version >= max(removed.get(upsert.user_id, 0), _version(latest.get(upsert.user_id))):
            latest[upsert.user_id] = upsert
    kept: list[Upsert] = []
    first_error = None
    all_usable = _are_all_usable(latest.values(), dimensions)
    for upsert in latest.values():
        usable, error = (upsert, None) if all_usable else _usable_part(upsert, dimensions)
        kept.append(usable)
        first_error = first_error or error
    return AppliedChange(
        tuple(kept), tuple(user_id for user_id in removed if user_id not in latest), first_error
    )


def _are_all_usable(upserts: Iterable[Upsert], dimensions: Mapping[str, int]) -> bool:
    """Return whether certainly nothing of a page is left out.

    All vectors of the page are checked at once.
    """
    vectors: dict[str, list[bytes]] = {}
    for upsert in upserts:
        for template in upsert.templates:
            if len(template.vector) != 4 * dimensions.get(template.space, 0):
                return False
            vectors.setdefault(template.space, []).append(template.vector)
    return all(are_units(to_array(b"".join(rows)).reshape(len(rows), -1)).all() for rows in vectors.values())


def _version(upsert: Upsert | None) -> int:
    return upsert.version if upsert else 0


def _usable_part(upsert: Upsert, dimensions: Mapping[str, int]) -> tuple[Upsert, WireError | None]:
    templates = []
    error = None
    for template in upsert.templates:
        if template.space not in dimensions:
            continue
        try:
            check_vector(template.vector, dimensions[template.space])
        except ContractError as invalid:
            # The sentence names identity and template, never numbers of the vector.
            error = WireError(
                code=invalid.code,
                detail=f"template {template.template_id} of {upsert.user_id} was left out ({template.space})",
            )
        else:
            templates.append(template)
    return upsert.model_copy(update={"templates": templates}), error
