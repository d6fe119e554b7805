"""Provide photographs of people: faces of scikit-image, moved, lit and noised."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.data import lfw_subset

NAMES = ("anna", "ben", "chris")


def portrait(face: int, variant: int = 0) -> NDArray[np.uint8]:
    """Return a photo of face number `face`, uint8[200, 200, 3].

    Its variants differ a little.
    """
    random = np.random.default_rng([face, variant])
    small = (lfw_subset()[face] * 255).astype(np.uint8)
    large = cv2.resize(small, (160, 160), interpolation=cv2.INTER_CUBIC)
    left, top = 20 + random.integers(-3, 4, 2)
    photo = np.full((200, 200), 128, np.uint8)
    photo[top : top + 160, left : left + 160] = large
    lit = photo * random.uniform(0.85, 1.15) + random.normal(0, 3, photo.shape)
    return np.asarray(cv2.cvtColor(np.clip(lit, 0, 255).astype(np.uint8), cv2.COLOR_GRAY2BGR), dtype=np.uint8)


def save(file: Path, photo: NDArray[np.uint8]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(cv2.imencode(file.suffix, photo)[1].tobytes())
    return file


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two photos of each of three people."""
    folder = tmp_path_factory.mktemp("people")
    for face, name in enumerate(NAMES):
        for variant in range(2):
            save(folder / name / f"{variant + 1}.png", portrait(face, variant))
    return folder
