"""The canary of a running device: quarantine, release, and the command's answer."""

import threading

import numpy as np
import pytest

from broker_bridge.contract.errors import CANARY_FAILED
from device.management.canary_run import CanaryRun
from device.management.commands import CommandFailedError
from device.management.health import Health
from device.vision.embedder import load_embedder
from device.vision.inference.loader import open_session
from tests.networks import save_arcface_like, save_nan


class ScriptedGpuSession:
    """A session on a GPU that returns wrong vectors while `is_broken`."""

    runs_on = "cuda"

    def __init__(self, path):
        self.cpu = open_session(path)
        self.path, self.sha256 = path, self.cpu.sha256
        self.input, self.outputs = self.cpu.input, self.cpu.outputs
        self.is_broken = False

    def run(self, batch):
        return [-each if self.is_broken else each for each in self.cpu.run(batch)]


def test_a_session_that_differs_is_quarantined_until_it_agrees(tmp_path):
    """The command returns the result in both cases."""
    session, health = ScriptedGpuSession(save_arcface_like(tmp_path / "m.onnx")), Health()
    canary = CanaryRun(session, "face:mine", health)
    assert "cosine" in canary.handle({})
    assert not health.is_quarantined

    session.is_broken = True
    with pytest.raises(CommandFailedError, match=r"face:mine is in quarantine: .*-1\.00000"):
        canary.handle({})
    assert health.is_quarantined
    [problem] = health.problems()
    assert problem.code == CANARY_FAILED

    session.is_broken = False
    assert canary.run().passed
    assert not health.problems()


def test_a_comparison_without_reference_fails(tmp_path):
    """Without the ONNX file the expected output of the engine is unknown."""
    session, health = ScriptedGpuSession(save_arcface_like(tmp_path / "m.onnx")), Health()
    session.path = tmp_path / "m.engine"
    result = CanaryRun(session, "face:mine", health, tmp_path / "gone.onnx").run()
    assert not result.passed
    assert "gone.onnx" in health.problems()[0].detail


def test_a_model_of_nan_is_quarantined_on_the_cpu_too(tmp_path):
    """Its vectors match no identity, without an error."""
    health = Health()
    CanaryRun(open_session(save_nan(tmp_path / "nan.onnx")), "face:nan", health).run()
    assert health.is_quarantined


def test_the_canary_runs_beside_recognition():
    """Both threads use the same session and get the outputs of a single thread."""
    embedder = load_embedder()
    faces = np.random.RandomState(1).randint(0, 256, (2, 112, 112, 3)).astype(np.uint8)
    alone = embedder.embed(faces)
    canary = CanaryRun(embedder.session, embedder.space.id, Health())
    results = []
    other = threading.Thread(target=lambda: results.extend(canary.run() for _ in range(5)))
    other.start()
    vectors = [embedder.embed(faces)]
    while other.is_alive():
        vectors.append(embedder.embed(faces))
    other.join()
    assert [result.passed for result in results] == [True] * 5
    for each in vectors:
        np.testing.assert_allclose(each, alone, atol=1e-5)
