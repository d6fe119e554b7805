"""Reading settings from a file and the environment."""

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
    """A variable replaces one key and leaves its neighbours as they are in the file."""
    file = written(tmp_path, {"mqtt": {"host": "file", "port": 1}, "bridge": {"auto_register": False}})
    environ = {"WFM_MQTT__HOST": "variable", "WFM_BRIDGE__AUTO_REGISTER": "true", "WFM_DEVICE__ID": "cam-1"}
    settings = load_settings(BridgeProgram, file, environ)
    assert (settings.mqtt.host, settings.mqtt.port, settings.bridge.auto_register) == ("variable", 1, True)


def test_objects_in_the_environment_are_json() -> None:
    """A structured setting is written as JSON in the environment."""
    settings = load_settings(BridgeProgram, None, {"WFM_BRIDGE__DEFAULT_SPACES": '{"face:x": 8}'})
    assert settings.bridge.default_spaces == {"face:x": 8}


def test_every_mistake_is_a_sentence(tmp_path: Path) -> None:
    """An unknown section, an unknown key and two wrong values are reported at once."""
    file = written(tmp_path, {"mqtts": {}, "mqtt": {"port": 99999, "hots": "x"}})
    with pytest.raises(SettingsError) as refused:
        load_settings(BridgeProgram, file, {"WFM_MONGO__URI": "http://x"})
    text = str(refused.value)
    assert len(refused.value.mistakes) == 4
    for part in (
        "no section 'mqtts'; did you mean 'mqtt'?",
        "mqtt.hots: there is no such setting; did you mean",
    ):
        assert part in text
    for part in ("WFM_MQTT__PORT", "mongodb://", "WFM_MONGO__URI"):
        assert part in text


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("BRIDGE", "SAME_PERSON_SIMILARITY", "0.7"),
        ("REGISTRY", "SAME_PERSON_SIMILARITY", "0.7"),
        ("REGISTRY", "LOOK_ALIKE_SIMILARITY", "0.7"),
        ("REGISTRY", "SIMILARITIES", '{"face:x": {"same_person": 0.7}}'),
        ("TRACKING", "FACES", '{"face:x": {"similarity": 0.7}}'),
    ],
)
def test_a_setting_that_moved_names_its_new_place(section: str, key: str, value: str) -> None:
    """A setting of an older file is reported with the place where it is now."""
    with pytest.raises(SettingsError, match=f"{key.lower()}: .*now.* registry.limits"):
        load_settings(BridgeProgram, None, {f"WFM_{section}__{key}": value})


def test_required_settings_are_named_one_by_one() -> None:
    """A device without settings gets one sentence for each required key."""
    with pytest.raises(SettingsError) as refused:
        load_settings(DeviceSettings, None, {})
    assert [mistake.split(":")[0] for mistake in refused.value.mistakes] == ["device.id", "device.site"]
    assert "WFM_DEVICE__ID" in refused.value.mistakes[0]


def test_a_secret_is_not_shown(tmp_path: Path) -> None:
    """A secret is neither in a mistake nor in the representation of settings."""
    settings = load_settings(BridgeProgram, None, {"WFM_MQTT__PASSWORD": "hunter2"})
    assert "hunter2" not in repr(settings)
    with pytest.raises(SettingsError) as refused:
        load_settings(BridgeProgram, None, {"WFM_MONGO__URI": "ftp://me:hunter2@x"})
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("key", ["", " ", "a key with blanks", "a-key-of-a-file\n", "schlüssel-eins"])
def test_a_key_that_no_header_can_hold_is_a_wrong_setting(key: str) -> None:
    """A key with blanks or line ends is a mistake, and the sentence does not show it."""
    with pytest.raises(SettingsError) as refused:
        load_settings(FleetSettings, None, {"WFM_FLEET__API_KEY": key})
    (mistake,) = refused.value.mistakes
    assert mistake.startswith("fleet.api_key: a key has no blanks")
    assert len(key) < 2 or key not in mistake


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({"WFM_MQQT__HOST": "x"}, "WFM_MQQT__HOST: there is no section 'mqqt'; did you mean 'mqtt'?"),
        ({"WFM_XYZ__HOST": "x"}, "WFM_XYZ__HOST: there is no section 'xyz'; the sections are mqtt, "),
        ({"WFM_MQTT__HOTS": "x"}, "mqtt.hots: there is no such setting; did you mean 'host'? "),
        ({"WFM_MQTT__QQQQ": "x"}, "mqtt.qqqq: there is no such setting (in the configuration file, or "),
        (
            {"WFM_REGISTRY__LIMITS": '{"face:x": {"same_preson": 0.7}}'},
            "registry.limits.face:x.same_preson: ",
        ),
    ],
)
def test_a_misspelt_name_gets_a_hint(environ: dict[str, str], sentence: str) -> None:
    """An unknown section or key is a mistake that names the closest known one."""
    with pytest.raises(SettingsError) as refused:
        load_settings(BridgeProgram, None, environ)
    assert any(mistake.startswith(sentence) for mistake in refused.value.mistakes)


def test_variables_of_other_programs_are_ignored() -> None:
    """Variables of sections that this program does not read are ignored.

    So are variables without a section.
    """
    environ = {"WFM_DEVICE__ID": "cam-1", "WFM_WORKER__X": "y", "WFM_HOME": "/srv", "PATH": "/bin"}
    assert load_settings(BridgeProgram, None, environ) == load_settings(BridgeProgram, None, {})


def test_a_password_that_looks_like_json_is_text() -> None:
    """Only settings that are lists or objects are read as JSON."""
    settings = load_settings(BridgeProgram, None, {"WFM_MQTT__PASSWORD": '{"a": 1}'})
    assert settings.mqtt.password is not None
    assert settings.mqtt.password.get_secret_value() == '{"a": 1}'


def test_an_object_that_is_not_json_is_a_sentence_of_its_setting() -> None:
    """A structured setting with other text says what it expected."""
    with pytest.raises(SettingsError, match=r"bridge\.default_spaces: Input should be a valid dictionary"):
        load_settings(BridgeProgram, None, {"WFM_BRIDGE__DEFAULT_SPACES": "{face:x"})


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b'\xef\xbb\xbf{"mqtt": {}}', "line 1, column 1: a byte order mark"),
        (b'{\n  // the broker\n  "mqtt": {}\n}', "line 2, column 3: a comment"),
        (b'{"mqtt": {} /* broker */}', "line 1, column 13: a comment"),
        (b'{\n  "mqtt": {},\n  # more\n  "log": {}}', "line 3, column 3: a comment"),
        (b'# settings\n{"mqtt": {}}', "line 1, column 1: a comment"),
        (b'{"mqtt": {}} // end', "line 1, column 14: a comment"),
        (b'{"mqtt": {"host": "x",}}', "line 1, column 22: a comma before '}'"),
        (b'{"mqtt": {"host": "x"},\n}', "line 1, column 23: a comma before '}'"),
        (b'{"bridge": {"x": [1, 2,\n ]}}', "line 1, column 23: a comma before ']'"),
        (b'{"mqtt": {"host": "\xff"}}', "line 1, column 20: not UTF-8"),
        (b"", "line 1, column 1: is not JSON"),
        (b'{"mqtt": {"host": "// not a comment"} "log": {}}', "line 1, column 39: is not JSON"),
    ],
)
def test_text_that_is_not_json_is_named_with_line_and_column(
    tmp_path: Path, data: bytes, sentence: str
) -> None:
    """A byte order mark, a comment and a trailing comma are named."""
    file = tmp_path / "config.json"
    file.write_bytes(data)
    with pytest.raises(SettingsError) as refused:
        load_settings(BridgeProgram, file, {})
    (mistake,) = refused.value.mistakes
    assert mistake.startswith(f"{file}: {sentence}")


@pytest.mark.parametrize("text", ["{", "[1]", '{"mqtt": 3}'])
def test_a_file_that_is_not_settings_is_one_sentence(tmp_path: Path, text: str) -> None:
    """Text that is not JSON, or is not an object of objects, is one mistake."""
    file = tmp_path / "config.json"
    file.write_text(text)
    with pytest.raises(SettingsError) as refused:
        load_settings(BridgeProgram, file, {})
    assert len(refused.value.mistakes) == 1


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    """The sentence names the missing file."""
    with pytest.raises(SettingsError, match=r"absent\.json: cannot be read"):
        load_settings(BridgeProgram, tmp_path / "absent.json", {})


def test_a_certificate_needs_its_key_and_its_authority() -> None:
    """Half a pair, or a pair without an authority, is a mistake."""
    for environ in ({"WFM_MQTT__CERT_FILE": "c"}, {"WFM_MQTT__CERT_FILE": "c", "WFM_MQTT__KEY_FILE": "k"}):
        with pytest.raises(SettingsError):
            load_settings(BridgeProgram, None, environ)
