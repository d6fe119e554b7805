"""The embedding spaces that a device holds: its camera's own, and those of other programs on it."""

from collections.abc import Mapping, Sequence

from broker_bridge.common.settings import SettingsError
from broker_bridge.contract.embeddings import EmbeddingSpace

# As many as a device may declare.
_MOST = 16


def supported_spaces(camera: EmbeddingSpace, further: Mapping[str, int]) -> tuple[EmbeddingSpace, ...]:
    """The camera's own space first, then those of `further` (`{space: dimension}`).

    Raises SettingsError for the camera's own space in another dimension, and for too many.
    """
    if further.get(camera.id, camera.dimension) != camera.dimension:
        raise SettingsError(
            [f"device.further_spaces: {camera.id} is the camera's own, of {camera.dimension} dimensions"]
        )
    others = [EmbeddingSpace(space, dimension) for space, dimension in further.items() if space != camera.id]
    if len(others) >= _MOST:
        raise SettingsError(
            [f"device.further_spaces: a device holds at most {_MOST} spaces, its camera's own among them"]
        )
    return (camera, *others)


def space_of_modality(modality: str, held: Sequence[EmbeddingSpace]) -> EmbeddingSpace | None:
    """The space that files of `modality` are of: the camera's own (the first of `held`), or the only one.

    None if none is held; raises SettingsError when it could be several.
    """
    fitting = [space for space in held if space.modality == modality]
    if len(fitting) > 1 and fitting[0] is not held[0]:
        names = ", ".join(space.id for space in fitting)
        raise SettingsError(
            [f"device.npy_dir: {modality}_db is of one space, and the device holds several: {names}"]
        )
    return fitting[0] if fitting else None
