"""The embedding spaces that a device supports, and the space of a folder."""

import pytest

from broker_bridge.common.settings import SettingsError
from broker_bridge.contract.embeddings import EmbeddingSpace
from device.spaces import space_of_modality, supported_spaces

CAMERA = EmbeddingSpace("face:test-8", 8, "a" * 64)


def test_the_cameras_own_space_comes_first_and_keeps_its_model():
    """A further space of the same name is ignored."""
    supported = supported_spaces(CAMERA, {"gait:gait-256": 256, "face:test-8": 8})
    assert supported == (CAMERA, EmbeddingSpace("gait:gait-256", 256))


@pytest.mark.parametrize(
    ("further", "sentence"),
    [
        ({"face:test-8": 16}, "the camera's own, with 8 dimensions"),
        ({f"gait:g{n}": 8 for n in range(16)}, "at most 16"),
    ],
)
def test_unsupported_spaces_are_a_settings_error(further, sentence):
    """One sentence names the setting."""
    with pytest.raises(SettingsError, match=f"device.further_spaces.*{sentence}"):
        supported_spaces(CAMERA, further)


def test_a_folder_has_the_cameras_own_space_or_the_only_one():
    """Another face space does not matter; a folder without a gait space has none."""
    supported = supported_spaces(CAMERA, {"face:other": 8, "speaker:campplus-192": 192})
    assert space_of_modality("face", supported) == CAMERA
    assert space_of_modality("speaker", supported) == EmbeddingSpace("speaker:campplus-192", 192)
    assert space_of_modality("gait", supported) is None


def test_a_folder_with_two_possible_spaces_is_a_settings_error():
    """The device does not guess the space of a vector."""
    supported = supported_spaces(CAMERA, {"gait:b": 8, "gait:a": 8})
    with pytest.raises(SettingsError, match=r"gait_db needs one space.*gait:b, gait:a"):
        space_of_modality("gait", supported)
