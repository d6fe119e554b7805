"""`from device import ...` offers firmware's names and loads modules on use only."""

import subprocess
import sys

import pytest

import device


@pytest.mark.parametrize("name", device.__all__)
def test_every_public_name_is_available(name: str) -> None:
    """Each name is an attribute of the package and listed by `dir`."""
    assert getattr(device, name).__name__ == name
    assert name in dir(device)


def test_another_name_raises_attribute_error() -> None:
    """The package behaves as any module."""
    with pytest.raises(AttributeError, match="no attribute 'DatabaseManger'"):
        device.DatabaseManger  # noqa: B018


def test_unused_modules_are_not_loaded() -> None:
    """Settings, client configuration and validators load neither OpenCV nor paho."""
    script = """
import sys, device, device.settings
from device import EmotionEventValidator, EventValidator, IoTClientConfig
print(*sorted({"cv2", "paho", "sqlite3", "onnxruntime"} & set(sys.modules)))
"""
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == []
