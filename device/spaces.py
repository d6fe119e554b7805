"""The embedding spaces that a device supports.

They are its camera's, and those of other programs on the device.
"""

from collections.abc import Mapping, Sequence

from broker_bridge.common.settings import SettingsError
from broker_bridge.contract.embeddings import EmbeddingSpace

# The contract's limit of spaces that a device may declare.
_MAX_SPACES = 16


def supported_spaces(camera: EmbeddingSpace, further: Mapping[str, int]) -> tuple[EmbeddingSpace, ...]:
    """Return the camera's own space, then those of `further` (`{space: dimension}`).

    Raises SettingsError for the camera's own space in another dimension, and for too many spaces.
    """
    if further.get(camera.id, camera.dimension) != camera.dimension:
        raise SettingsError(
            [f"device.further_spaces: {camera.id} is the camera's own, with {camera.dimension} dimensions"]
        )
    others = [EmbeddingSpace(space, dimension) for space, dimension in further.items() if space != camera.id]
    if len(others) >= _MAX_SPACES:
        raise SettingsError(
            [f"device.further_spaces: a device supports at most {_MAX_SPACES} spaces with its camera's own"]
        )
    return (camera, *others)


def space_of_modality(modality: str, supported: Sequence[EmbeddingSpace]) -> EmbeddingSpace | None:
    """Return the space for files of `modality`.

    It is the camera's own (the first), or the only one. Returns None if the device supports none. Raises
    SettingsError if several are possible.
    """
    matching = [space for space in supported if space.modality == modality]
    if len(matching) > 1 and matching[0] is not supported[0]:
        names = ", ".join(space.id for space in matching)
        raise SettingsError(
            [f"device.npy_dir: {modality}_db needs one space, and the device supports several: {names}"]
        )
    return matching[0] if matching else None
