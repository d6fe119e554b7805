"""docs/recognition.md names every reason that a heartbeat counts."""

import re
import ssl
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import device
from device.events import decision, emotion_validator
from device.vision import quality

PAGE = (Path(__file__).parents[4] / "docs" / "recognition.md").read_text(encoding="utf-8")
SECTION = PAGE[PAGE.index("## Why there was no event") : PAGE.index("**See it.**")]


def reasons_of(module: ModuleType) -> set[str]:
    return {value for name, value in vars(module).items() if name.isupper() and isinstance(value, str)}


@pytest.mark.parametrize("module", [decision, emotion_validator, quality], ids=lambda module: module.__name__)
def test_every_reason_is_explained(module: ModuleType) -> None:
    """A reason in a heartbeat is found on the page."""
    reasons = reasons_of(module)
    assert len(reasons) >= 5
    assert reasons - set(re.findall(r"`(\w+)`", SECTION)) == set()


def test_no_reason_is_explained_that_the_code_lacks() -> None:
    """The table of refusals equals the reasons of the code."""
    assert set(re.findall(r"^\| `(\w+)` \|", SECTION, re.MULTILINE)) == reasons_of(decision)


def test_the_example_for_firmware_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test replaces only the broker's authority."""
    [example] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    authority = ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt"
    namespace: dict[str, Any] = {}
    exec(example.replace("/etc/wfm/ca.pem", authority), namespace)
    assert namespace["client"].config.mqtt.ca_file == Path(authority)
    assert set(device.__all__) <= set(namespace)
    namespace["client"].stop()
    assert (tmp_path / "device.db").is_file()
