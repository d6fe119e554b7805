import json
from pathlib import Path

import pytest

from broker_bridge.common.settings import SettingsError, load_settings
from broker_bridge.settings import BridgeProgram
from device.settings import DeviceSettings
from fleet.settings import FleetSettings


def written(folder: Path, document: object) -> Path:
    file = folder / "config.json"
    file.write_text(json.dumps(document))
    return file


def test_the_environment_goes_over_the_file(tmp_path: Path) -> None:
    """A variable replaces one key and leaves its neighbours as the file has them."""
    file = written(tmp_path, {"mqtt": {"host": "file", "port": 1}, "bridge": {"auto_register": False}})
    environ = {"WFM_MQTT__HOST": "variable", "WFM_BRIDGE__AUTO_REGISTER": "true", "WFM_DEVICE__ID": "cam-1"}
    settings = load_settings(BridgeProgram, file, environ)
    assert (settings.mqtt.host, settings.mqtt.port, settings.bridge.auto_register) == ("variable", 1, True)


def test_objects_in_the_environment_are_json() -> None:
    """A setting with structure is written as JSON."""
    settings = load_settings(BridgeProgram, None, {"WFM_BRIDGE__DEFAULT_SPACES": '{"face:x": 8}'})
    assert settings.bridge.default_spaces == {"face:x": 8}


def test_every_mistake_is_a_sentence(tmp_path: Path) -> None:
    """All at once: an unknown section, an unknown key, and two wrong values with their variables' names."""
    file = written(tmp_path, {"mqtts": {}, "mqtt": {"port": 99999, "hots": "x"}})
    with pytest.raises(SettingsError) as refused:
        load_settings(BridgeProgram, file, {"WFM_MONGO__URI": "http://x"})
    text = str(refused.value)
    assert len(refused.value.mistakes) == 4
    for part in ("no section 'mqtts'", "mqtt.hots", "WFM_MQTT__PORT", "mongodb://", "WFM_MONGO__URI"):
        assert part in text


def test_settings_that_moved_are_told_where_to() -> None:
    """A file of the version before names them in section `bridge`."""
    with pytest.raises(SettingsError, match="same_person_similarity: now in section registry"):
        load_settings(BridgeProgram, None, {"WFM_BRIDGE__SAME_PERSON_SIMILARITY": "0.7"})


def test_what_must_be_set_is_named_key_by_key() -> None:
    """A camera without any settings is told both keys that it cannot do without."""
    with pytest.raises(SettingsError) as refused:
        load_settings(DeviceSettings, None, {})
    assert [mistake.split(":")[0] for mistake in refused.value.mistakes] == ["device.id", "device.site"]
    assert "WFM_DEVICE__ID" in refused.value.mistakes[0]


def test_a_secret_is_not_shown(tmp_path: Path) -> None:
    """Neither in a mistake nor when settings are printed."""
    settings = load_settings(BridgeProgram, None, {"WFM_MQTT__PASSWORD": "hunter2"})
    assert "hunter2" not in repr(settings)
    with pytest.raises(SettingsError) as refused:
        load_settings(BridgeProgram, None, {"WFM_MONGO__URI": "ftp://me:hunter2@x"})
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("key", ["", " ", "a key with blanks", "a-key-of-a-file\n", "schlüssel-eins"])
def test_a_key_that_no_header_can_hold_is_a_wrong_setting(key: str) -> None:
    """Else it would look as if the server were away. The sentence does not show it."""
    with pytest.raises(SettingsError) as refused:
        load_settings(FleetSettings, None, {"WFM_FLEET__API_KEY": key})
    (mistake,) = refused.value.mistakes
    assert mistake.startswith("fleet.api_key: a key has no blanks")
    assert len(key) < 2 or key not in mistake


@pytest.mark.parametrize("text", ["{", "[1]", '{"mqtt": 3}'])
def test_a_file_that_is_not_settings_is_one_sentence(tmp_path: Path, text: str) -> None:
    """Not JSON, not an object, or a section that is none."""
    file = tmp_path / "config.json"
    file.write_text(text)
    with pytest.raises(SettingsError) as refused:
        load_settings(BridgeProgram, file, {})
    assert len(refused.value.mistakes) == 1


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    """It names the file and what is wrong with it."""
    with pytest.raises(SettingsError, match=r"absent\.json: cannot be read"):
        load_settings(BridgeProgram, tmp_path / "absent.json", {})


def test_a_certificate_needs_its_key_and_its_authority() -> None:
    """Half a pair, or a pair without an authority, is refused."""
    for environ in ({"WFM_MQTT__CERT_FILE": "c"}, {"WFM_MQTT__CERT_FILE": "c", "WFM_MQTT__KEY_FILE": "k"}):
        with pytest.raises(SettingsError):
            load_settings(BridgeProgram, None, environ)
