"""Compare the photos of an enrollment with each other and with stored ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends

from broker_bridge.registry.identities.service import Identities
from broker_bridge.registry.spaces import SpaceRegistry
from dashboard_api.identities.photo_warnings import NamedVector, find_disagreements
from dashboard_api.services.dependencies import IdentitiesDep, SpacesDep


@dataclass(frozen=True)
class PhotoComparison:
    """The comparison of new photos with what their identity has."""

    identities: Identities
    spaces: SpaceRegistry

    async def compare(self, user_id: str, space: str, photos: Sequence[NamedVector]) -> list[str | None]:
        """Return a sentence per photo that resembles no other of the identity.

        In a space without limits there is none. Raises RegistryError.
        """
        record = (await self.spaces.records()).get(space)
        if record is None or record.limits is None:
            return [None] * len(photos)
        stored = (await self.identities.templates_of([user_id])).get(user_id, [])
        vectors = [template.vector for template in stored if template.space == space]
        return find_disagreements(photos, vectors, record.limits.look_alike)


def _comparison(identities: IdentitiesDep, spaces: SpacesDep) -> PhotoComparison:
    return PhotoComparison(identities, spaces)


PhotoComparisonDep = Annotated[PhotoComparison, Depends(_comparison)]
