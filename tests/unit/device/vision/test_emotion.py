"""The input of an emotion classifier, and the meaning of its outputs."""

import numpy as np
import pytest
from onnx import helper

from device.vision.emotion import Emotion, EmotionClassifier
from device.vision.inference.loader import open_session
from device.vision.inference.session import ModelError
from tests.networks import save_network

CLASSES = ["red", "green", "blue"]
CODES = {"red": "EV2.1", "blue": "EV2.3"}


def means(shape, *, then=(), outputs=3, weights=None):
    """Return a network that outputs the mean of each channel, followed by `then`."""
    names = ["means", *[node.output[0] for node in then]]
    first = helper.make_node("ReduceMean", ["input"], ["means"], axes=[2, 3], keepdims=0)
    return {
        "nodes": [first, *then],
        "input_shape": shape,
        "outputs": [(names[-1], (shape[0], outputs))],
        "weights": weights,
    }


def classifier(path, network, **settings):
    session = open_session(save_network(path / "emotion.onnx", **network))
    return EmotionClassifier(session, CLASSES, CODES, **settings)


def faces(*bgr):
    return np.stack([np.full((112, 112, 3), each, np.uint8) for each in bgr])


def test_a_network_with_three_channels_gets_rgb_in_its_own_size(tmp_path):
    """A blue face (BGR 255, 0, 0) is blue; a class without a code has none."""
    found = classifier(tmp_path, means(("n", 3, 64, 48)), scale=10.0).classify(
        faces((255, 0, 0), (0, 255, 0), (0, 0, 255))
    )
    assert [(each.label, each.code) for each in found] == [
        ("blue", "EV2.3"),
        ("green", None),
        ("red", "EV2.1"),
    ]


def test_a_network_with_one_channel_gets_grey(tmp_path):
    """Each pixel is (77 - mean) / scale; the weights multiply it by 1, 2 and -1."""
    network = means(
        (1, 1, 48, 48),
        then=[helper.make_node("MatMul", ["means", "weights"], ["output"])],
        weights={"weights": np.array([[1, 2, -1]], np.float32)},
    )
    found = classifier(tmp_path, network, mean=27.0, scale=50.0).classify(faces((77, 77, 77), (2, 2, 2)))
    logits = np.array([[1, 2, -1], [-0.5, -1, 0.5]])
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert [each.label for each in found] == ["green", "blue"]
    np.testing.assert_allclose([each.confidence for each in found], expected.max(axis=1), atol=1e-5)


def test_probabilities_are_not_softened_again(tmp_path):
    """The network ends in a softmax."""
    network = means(("n", 3, 32, 32), then=[helper.make_node("Softmax", ["means"], ["output"], axis=1)])
    [found] = classifier(tmp_path, network, scale=100.0).classify(faces((0, 0, 200)))
    assert found.label == "red"
    assert found.confidence == pytest.approx(np.exp(2) / (np.exp(2) + 2), abs=1e-4)


def test_a_large_input_and_huge_logits_stay_finite(tmp_path):
    """Faces are enlarged to 224, and the exponential of the logits overflows."""
    [found] = classifier(tmp_path, means(("n", 3, 224, 224)), scale=0.001).classify(faces((255, 0, 250)))
    assert (found.label, found.confidence) == ("blue", 1.0)


class Recorded:
    """A session that returns the given outputs and records the shapes of its batches."""

    def __init__(self, *answers, shape=(None, 3, 112, 112)):
        session_input = type("Input", (), {"shape": shape})
        self.input, self.path, self.answers, self.batches = session_input, "some.onnx", list(answers), []

    def run(self, batch):
        self.batches.append(batch.shape)
        return [np.array(self.answers.pop(0), np.float32)]


def test_all_faces_of_a_frame_are_one_batch():
    """The first batch checks the network at the start; no faces make no batch."""
    session = Recorded([[0, 0, 0]], np.eye(3))
    watching = EmotionClassifier(session, CLASSES, CODES)
    assert watching.classify(faces((0, 0, 0))[:0]) == []
    assert [each.label for each in watching.classify(faces(*[(9, 9, 9)] * 3))] == CLASSES
    assert session.batches == [(1, 3, 112, 112), (3, 3, 112, 112)]


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_an_output_that_is_no_number_is_no_emotion(broken):
    """The other faces of the batch keep theirs."""
    watching = EmotionClassifier(Recorded([[0, 0, 0]], [[broken, 9, 0], [0.1, 0.2, 0.7]]), CLASSES, CODES)
    first, second = watching.classify(faces((0, 0, 0), (1, 1, 1)))
    assert first == Emotion(None, None, 0.0)
    assert (second.label, second.code, second.confidence) == ("blue", "EV2.3", pytest.approx(0.7))


TWICE = helper.make_node("Concat", ["means", "means"], ["twice"], axis=1)


@pytest.mark.parametrize(
    ("network", "sentence"),
    [
        (means(("n", 4, 64, 64), outputs=4), "1 or 3"),
        (means(("n", 3, "h", "w")), "fixed height and width"),
        (means(("n", 3, 64, 64), then=[TWICE], outputs=6), "3 classes"),
    ],
)
def test_a_network_of_another_shape_is_refused(tmp_path, network, sentence):
    """Channels, size or number of classes are wrong; the sentence names the file."""
    with pytest.raises(ModelError, match=sentence) as caught:
        classifier(tmp_path, network)
    assert "emotion.onnx" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_network_that_is_no_picture_network_is_refused():
    """The input has two dimensions instead of four."""
    with pytest.raises(ModelError, match=r"takes \[None, 512\]"):
        EmotionClassifier(Recorded([[0, 0, 0]], shape=(None, 512)), CLASSES, CODES)
