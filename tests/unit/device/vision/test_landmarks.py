"""Five landmarks by trees: dlib's own, for any square."""

import time

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from device.vision.landmarks import LandmarkPredictor

PICTURE = np.ascontiguousarray(astronaut()[..., ::-1])
FACE = (170, 60, 110, 110)
# What dlib 20.0.1 answers in the portrait of Eileen Collins, in whole pixels: on the face, beside it, and
# over the edges.
DLIB = {
    FACE: [(255, 104), (238, 104), (195, 101), (212, 103), (224, 135)],
    (190, 75, 80, 80): [(255, 104), (238, 105), (195, 101), (212, 103), (224, 134)],
    (150, 40, 160, 150): [(261, 90), (243, 86), (196, 78), (213, 81), (222, 125)],
    (300, 300, 90, 60): [(358, 309), (351, 312), (324, 317), (336, 315), (356, 333)],
    (-40, -30, 120, 140): [(40, 16), (30, 20), (6, 32), (17, 27), (32, 62)],
    (470, 480, 90, 90): [(533, 510), (521, 509), (495, 506), (506, 507), (508, 534)],
}


@pytest.fixture(scope="module")
def predictor():
    return LandmarkPredictor()


def squares(*rows):
    return np.array(rows, dtype=np.float64).reshape(-1, 4)


@pytest.mark.parametrize("square", DLIB, ids=str)
def test_the_landmarks_are_dlibs(predictor, square):
    """Dlib rounds to whole pixels; so rounded, they are equal."""
    found = predictor.predict(PICTURE, squares(square))[0]
    np.testing.assert_array_equal(np.floor(found + 0.5), DLIB[square])


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 9])
def test_faces_of_a_batch_do_not_touch_each_other(predictor, count):
    """Each has the landmarks that it has alone, to the last bit."""
    batch = squares(*(list(DLIB) * 2)[:count])
    together = predictor.predict(PICTURE, batch)
    alone = np.concatenate([predictor.predict(PICTURE, batch[row : row + 1]) for row in range(count)])
    assert (together.shape, together.dtype) == ((count, 5, 2), np.float32)
    np.testing.assert_array_equal(together, alone)


NAN, INF = float("nan"), float("inf")
DEGENERATE = [
    (NAN, 60, 110, 110),
    (170, INF, 110, 110),
    (170, 60, -INF, 110),
    (170, 60, 110, NAN),
    (170, 60, 0, 110),
    (170, 60, 110, 1),
    (170, 60, -110, -110),
    (1e300, 60, 110, 110),
    (170, -1e7, 110, 110),
    (170, 60, 1e9, 110),
]


@pytest.mark.parametrize("square", DEGENERATE, ids=str)
def test_a_degenerate_square_has_no_landmarks(predictor, square):
    """They are NaN, so that alignment falls back to the box."""
    found = predictor.predict(PICTURE, squares(square, FACE))
    assert np.isnan(found[0]).all()
    np.testing.assert_array_equal(np.floor(found[1] + 0.5), DLIB[FACE])


@pytest.mark.parametrize("square", [(170, 60, 2, 2), (900, 900, 50, 50), (-1e5, 3, 40, 40), (0, 0, 9e5, 9e5)])
def test_squares_of_any_size_and_place_have_finite_landmarks(predictor, square):
    """What lies outside the picture is black."""
    assert np.isfinite(predictor.predict(PICTURE, squares(square))).all()


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 700, 3), (700, 1, 3)])
def test_the_narrowest_pictures_are_accepted(predictor, shape):
    """No place of a picture is read that it has not."""
    assert np.isfinite(predictor.predict(np.full(shape, 255, np.uint8), squares((0, 0, 40, 40)))).all()


def test_no_faces_and_no_pixels_have_no_landmarks(predictor):
    """Both are usual: an empty scene, and a camera without a picture."""
    assert predictor.predict(PICTURE, squares()).shape == (0, 5, 2)
    assert np.isnan(predictor.predict(np.zeros((0, 0, 3), np.uint8), squares(FACE))).all()


def test_a_part_of_a_picture_is_read_in_place(predictor):
    """A view that is not contiguous gives what its copy gives, and is not written to."""
    view = PICTURE[20:300, 100:400]
    before = view.copy()
    moved = squares((70, 40, 110, 110))
    np.testing.assert_array_equal(predictor.predict(view, moved), predictor.predict(before, moved))
    np.testing.assert_array_equal(view, before)


def test_landmarks_follow_the_picture_when_it_is_enlarged(predictor):
    """A face twice as large has its landmarks at twice the place."""
    large = cv2.resize(PICTURE, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    single = predictor.predict(PICTURE, squares(FACE))
    double = predictor.predict(large, 2 * squares(FACE))
    assert np.abs(double / 2 - single).max() < 3


def test_four_faces_are_quick(predictor):
    """The best run takes less than 12 ms of processor time; three are usual."""
    batch = squares(FACE, FACE, FACE, FACE)
    seconds = []
    for _ in range(12):
        began = time.thread_time()
        predictor.predict(PICTURE, batch)
        seconds.append(time.thread_time() - began)
    assert min(seconds) < 0.012
