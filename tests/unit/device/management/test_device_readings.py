"""What a device tells of its machine and its settings."""

import json
from pathlib import Path

import pytest

from broker_bridge.common.settings import SettingsError, load_settings
from device.management.system import read_system
from device.settings import DeviceSettings


def test_a_jetsons_zones_are_read_and_those_that_are_off_left_out(tmp_path: Path) -> None:
    """Degrees Celsius by the zone's name."""
    for number, (name, value) in enumerate(
        [("CPU-therm", "48500"), ("GPU-therm", ""), ("tj-therm", "51250")]
    ):
        zone = tmp_path / "thermal" / f"thermal_zone{number}"
        zone.mkdir(parents=True)
        (zone / "type").write_text(name + "\n")
        (zone / "temp").write_text(value)
    readings = read_system(tmp_path, thermal=tmp_path / "thermal")
    assert readings.temperatures == {"CPU-therm": 48.5, "tj-therm": 51.25}


def test_what_a_machine_does_not_have_is_absent(tmp_path: Path) -> None:
    """No /proc, no thermal zones, no such folder."""
    readings = read_system(tmp_path / "gone", proc=tmp_path, thermal=tmp_path)
    assert (readings.memory_mb, readings.disk_free_mb, readings.temperatures) == (None, None, {})


def test_this_machine_has_memory_and_a_disk(tmp_path: Path) -> None:
    """Megabytes."""
    readings = read_system(tmp_path)
    assert readings.memory_mb is not None
    assert readings.disk_free_mb is not None
    assert 5 < readings.memory_mb < 50_000
    assert readings.disk_free_mb > 0


def test_settings_come_from_the_file_and_the_environment_goes_before_it(tmp_path: Path) -> None:
    """The names that operators rely on."""
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"device": {"id": "cam-001", "site": "lobby", "cooldown_seconds": 5}}))
    settings = load_settings(DeviceSettings, file, {"WFM_DEVICE__SITE": "gate", "WFM_DEVICE__SOURCE": "0"})
    assert (settings.device.id, settings.device.site, settings.device.source) == ("cam-001", "gate", "0")
    assert settings.device.cooldown_seconds == 5.0


def test_every_wrong_setting_gets_its_sentence() -> None:
    """All at once."""
    with pytest.raises(SettingsError) as wrong:
        load_settings(
            DeviceSettings,
            None,
            {"WFM_DEVICE__ID": "cam-001", "WFM_DEVICE__SITE": "a/b", "WFM_DEVICE__FPS": "-1"},
        )
    assert len(wrong.value.mistakes) == 2
