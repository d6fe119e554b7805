"""`from device import ...`: what firmware uses, found without loading what it does not use."""

import subprocess
import sys

import pytest

import device


@pytest.mark.parametrize("name", device.__all__)
def test_every_public_name_is_there(name: str) -> None:
    """Under its own name, and listed."""
    assert getattr(device, name).__name__ == name
    assert name in dir(device)


def test_a_name_that_is_not_public_is_not_there() -> None:
    """An AttributeError, as for any module."""
    with pytest.raises(AttributeError, match="no attribute 'DatabaseManger'"):
        device.DatabaseManger  # noqa: B018


def test_what_is_not_named_is_not_loaded() -> None:
    """Settings, a client's configuration and the validators cost neither OpenCV nor paho."""
    script = """
import sys, device, device.settings
from device import EmotionEventValidator, EventValidator, IoTClientConfig
print(*sorted({"cv2", "paho", "sqlite3", "apscheduler", "onnxruntime"} & set(sys.modules)))
"""
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == []
