"""Which spaces a device holds, and which of them a folder is of."""

import pytest

from broker_bridge.common.settings import SettingsError
from broker_bridge.contract.embeddings import EmbeddingSpace
from device.spaces import space_of_modality, supported_spaces

CAMERA = EmbeddingSpace("face:test-8", 8, "a" * 64)


def test_the_cameras_own_space_comes_first_and_keeps_its_model():
    """Also where it is named again."""
    held = supported_spaces(CAMERA, {"gait:gait-256": 256, "face:test-8": 8})
    assert held == (CAMERA, EmbeddingSpace("gait:gait-256", 256))


@pytest.mark.parametrize(
    ("further", "sentence"),
    [
        ({"face:test-8": 16}, "the camera's own, with 8 dimensions"),
        ({f"gait:g{n}": 8 for n in range(16)}, "at most 16"),
    ],
)
def test_spaces_that_cannot_be_held_are_a_mistake_in_the_settings(further, sentence):
    """One sentence, naming the setting."""
    with pytest.raises(SettingsError, match=f"device.further_spaces.*{sentence}"):
        supported_spaces(CAMERA, further)


def test_a_folder_is_of_the_cameras_own_space_or_of_the_only_one():
    """Another face space does not matter; no gait space, no gait."""
    held = supported_spaces(CAMERA, {"face:other": 8, "speaker:campplus-192": 192})
    assert space_of_modality("face", held) == CAMERA
    assert space_of_modality("speaker", held) == EmbeddingSpace("speaker:campplus-192", 192)
    assert space_of_modality("gait", held) is None


def test_a_folder_that_could_be_of_two_spaces_is_a_mistake_in_the_settings():
    """The device does not guess the space of a vector."""
    held = supported_spaces(CAMERA, {"gait:b": 8, "gait:a": 8})
    with pytest.raises(SettingsError, match=r"gait_db needs one space.*gait:b, gait:a"):
        space_of_modality("gait", held)
