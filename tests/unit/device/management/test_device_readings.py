"""The system readings and the settings of a device."""

import json
from pathlib import Path

import pytest

from broker_bridge.common.settings import SettingsError, load_settings
from device.management.system import read_system
from device.settings import DeviceSettings


def test_active_thermal_zones_are_read(tmp_path: Path) -> None:
    """Temperatures are in degrees Celsius by zone name.

    Zones that are off are absent.
    """
    for number, (name, value) in enumerate(
        [("CPU-therm", "48500"), ("GPU-therm", ""), ("tj-therm", "51250")]
    ):
        zone = tmp_path / "thermal" / f"thermal_zone{number}"
        zone.mkdir(parents=True)
        (zone / "type").write_text(name + "\n")
        (zone / "temp").write_text(value)
    readings = read_system(tmp_path, thermal=tmp_path / "thermal")
    assert readings.temperatures == {"CPU-therm": 48.5, "tj-therm": 51.25}


def test_missing_readings_are_absent(tmp_path: Path) -> None:
    """The machine has no `/proc`, no thermal zones and no such folder."""
    readings = read_system(tmp_path / "gone", proc=tmp_path, thermal=tmp_path)
    assert (readings.memory_mb, readings.disk_free_mb, readings.temperatures) == (None, None, {})


def test_this_machine_has_memory_and_a_disk(tmp_path: Path) -> None:
    """Memory and disk are in megabytes."""
    readings = read_system(tmp_path)
    assert readings.memory_mb is not None
    assert readings.disk_free_mb is not None
    assert 5 < readings.memory_mb < 50_000
    assert readings.disk_free_mb > 0


def test_the_environment_overrides_the_settings_file(tmp_path: Path) -> None:
    """Operators rely on these names."""
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"device": {"id": "cam-001", "site": "lobby", "cooldown_seconds": 5}}))
    settings = load_settings(DeviceSettings, file, {"WFM_DEVICE__SITE": "gate", "WFM_DEVICE__SOURCE": "0"})
    assert (settings.device.id, settings.device.site, settings.device.source) == ("cam-001", "gate", "0")
    assert settings.device.cooldown_seconds == 5.0


def test_every_wrong_setting_is_reported() -> None:
    """All mistakes are reported at once."""
    with pytest.raises(SettingsError) as wrong:
        load_settings(
            DeviceSettings,
            None,
            {"WFM_DEVICE__ID": "cam-001", "WFM_DEVICE__SITE": "a/b", "WFM_DEVICE__FPS": "-1"},
        )
    assert len(wrong.value.mistakes) == 2
