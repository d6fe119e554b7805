"""Wrong names and values of settings are mistakes, each with one clear sentence."""

import json
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import annotated_types
import pytest
from pydantic import BaseModel, SecretStr

from broker_bridge.common.settings import FilePath, Settings, SettingsError, load_settings
from broker_bridge.settings import BridgeProgram
from dashboard_api.settings import ApiProgram
from device.embedding.settings import WorkerSettings
from device.settings import DeviceSettings
from fleet.settings import FleetSettings

PROGRAMS: list[type[Settings]] = [BridgeProgram, ApiProgram, DeviceSettings, WorkerSettings, FleetSettings]
CAMERA = {"WFM_DEVICE__ID": "cam-1", "WFM_DEVICE__SITE": "lobby"}


def mistakes(model: type[Settings], environ: dict[str, str], file: Path | None = None) -> list[str]:
    with pytest.raises(SettingsError) as refused:
        load_settings(model, file, environ)
    return refused.value.mistakes


def camera(**device: str) -> DeviceSettings:
    environ = {f"WFM_DEVICE__{key.upper()}": value for key, value in device.items()}
    return load_settings(DeviceSettings, None, CAMERA | environ)


def fields(model: type[BaseModel], place: str) -> Iterator[tuple[str, Any]]:
    """Yield place and annotation of each leaf below a model, with its metadata."""
    for name, field in model.model_fields.items():
        annotation = field.annotation
        if field.metadata:
            annotation = typing.Annotated[(annotation, *field.metadata)]
        yield from leaves(annotation, f"{place}.{name}")


def leaves(annotation: Any, place: str) -> Iterator[tuple[str, Any]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield from fields(annotation, place)
    elif typing.get_origin(annotation) is typing.Annotated:
        yield place, annotation
    elif typing.get_args(annotation) and typing.get_origin(annotation) is not typing.Literal:
        for part in typing.get_args(annotation):
            yield from leaves(part, place)
    else:
        yield place, annotation


def limits(annotation: Any) -> set[str]:
    found = set()
    for each in getattr(annotation, "__metadata__", ()):
        for part in getattr(each, "metadata", [each]):
            if isinstance(part, (annotated_types.Ge, annotated_types.Gt)):
                found.add("lower")
            if isinstance(part, (annotated_types.Le, annotated_types.Lt)):
                found.add("upper")
    return found


def bare(annotation: Any) -> Any:
    return typing.get_args(annotation)[0] if typing.get_origin(annotation) is typing.Annotated else annotation


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_number_has_bounds(program: type[Settings]) -> None:
    """A number without a lower or an upper bound ends in a traceback somewhere."""
    numbers = [(place, each) for place, each in fields(program, "") if bare(each) in (int, float)]
    assert program is FleetSettings or len(numbers) > 5
    assert [place for place, each in numbers if limits(each) != {"lower", "upper"}] == []


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_path_expands_the_home_folder(program: type[Settings]) -> None:
    """A plain Path would make a folder named ~."""
    assert [place for place, each in fields(program, "") if bare(each) is Path and each != FilePath] == []


@pytest.mark.parametrize(
    "text", ["inf", "-inf", "nan", "Infinity", "NaN", "1e400", "1e-400", "1e-300", "-1", "1e300"]
)
@pytest.mark.parametrize("key", ["HEARTBEAT_SECONDS", "FPS", "SYNC_INTERVAL_MINUTES"])
def test_a_number_beyond_its_bounds_is_a_mistake(key: str, text: str) -> None:
    """Nothing that is not finite and sensible is taken."""
    if key == "FPS" and float(text) == 0:
        assert camera(fps=text).device.fps == 0
        return
    (mistake,) = mistakes(DeviceSettings, CAMERA | {f"WFM_DEVICE__{key}": text})
    assert mistake.startswith(f"device.{key.lower()}: ")
    assert f"WFM_DEVICE__{key}" in mistake


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("WFM_MQTT_HOST", "WFM_MQTT__HOST"),
        ("WFM_MQQT_HOST", "WFM_MQTT__HOST"),
        ("WFM_MQTTHOST", "WFM_MQTT__HOST"),
        ("WFM_MQTT_USER_NAME", "WFM_MQTT__USERNAME"),
        ("WFM_LOG_LEVEL", "WFM_LOG__LEVEL"),
        ("WFM_LOGLEVEL", "WFM_LOG__LEVEL"),
        ("WFM_PASSWORD", "WFM_MQTT__PASSWORD"),
        ("WFM_DEVICE_ID", "WFM_DEVICE__ID"),
        ("wfm_mqtt_host", "WFM_MQTT__HOST"),
        ("WFMMQTT__HOST", "WFM_MQTT__HOST"),
        ("WFM-MQTT__HOST", "WFM_MQTT__HOST"),
        ("wfm.mqtt.host", "WFM_MQTT__HOST"),
        (" WFM_MQTT__HOST", "WFM_MQTT__HOST"),
        ("WFM-MQTT-USERNAME", "WFM_MQTT__USERNAME"),
        ("WMF_MQTT__HOST", "WFM_MQTT__HOST"),
        ("WFN_MQTT__HOST", "WFM_MQTT__HOST"),
        ("WFM__MQTT__HOST", "mqtt"),
        ("WFM_MQQT__HOST", "mqtt"),
        ("wfm_mqqt__host", "mqtt"),
        ("WFM_MQTT__HSOT", "host"),
        ("WFM_MQTT___HOST", "host"),
        ("WFM_MQTT__", "no such setting"),
        ("WFM_MQTT", "WFM_MQTT__NAME"),
    ],
)
def test_a_variable_that_names_no_setting_is_a_mistake(variable: str, meant: str) -> None:
    """The sentence names what was probably meant."""
    (mistake,) = mistakes(BridgeProgram, {variable: "x"})
    assert meant in mistake


def test_other_variables_are_no_mistakes() -> None:
    """Other programs have variables, and Kubernetes sets some for a service wfm-api."""
    others = {
        "WFM_DEVICE__ID": "cam-1",
        "WFM_FLEET__ANY": "x",
        "WFM_HOME": "/srv",
        "WFM": "x",
        "WFM_": "x",
        "WFM-HOME": "/srv",
        "MQTT_HOST": "x",
        "APP_MQTT__HOST": "x",
        "WFM_API_SERVICE_HOST": "10.0.0.1",
        "WFM_API_SERVICE_PORT_HTTP": "80",
        "WFM_API_PORT": "tcp://10.0.0.1:80",
        "WFM_API_PORT_80_TCP_ADDR": "10.0.0.1",
        "WFM_MQTT": "tcp://10.0.0.1:80",
    }
    assert load_settings(BridgeProgram, None, others) == load_settings(BridgeProgram, None, {})


def test_case_does_not_matter_but_twice_is_a_mistake() -> None:
    """Two spellings of one variable contradict each other."""
    assert load_settings(BridgeProgram, None, {"wfm_Mqtt__host": "b"}).mqtt.host == "b"
    for first, second in (("WFM_MQTT__HOST", "wfm_mqtt__host"), ("WFM_MQTT", "wfm_mqtt")):
        (mistake,) = mistakes(BridgeProgram, {first: '{"host": "a"}', second: '{"host": "b"}'})[:1]
        assert mistake == f"{second}: {first} sets the same; remove one of them"


def test_a_section_in_one_variable_is_an_object() -> None:
    """A variable of one key goes over it."""
    settings = load_settings(
        BridgeProgram, None, {"WFM_MQTT": '{"host": "a", "port": 5}', "WFM_MQTT__PORT": "6"}
    )
    assert (settings.mqtt.host, settings.mqtt.port) == ("a", 6)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"mqtt": {"host": "a", "host": "b"}}', "has mqtt.host twice"),
        ('{"mqtt": {}, "mqtt": {}}', "has mqtt twice"),
        ('{"device": {"thresholds": {"face:x": {"distance": 1, "distance": 2}}}}', "face:x.distance twice"),
        ('{"device": {"fps": NaN}}', "has NaN"),
        ('{"device": {"fps": -Infinity}}', "has -Infinity"),
        ('{"device": {"id": "a", "site": "b", "fps": 1e400}}', "device.fps: Input should be a finite number"),
        ('{"mqtt": {"port": ' + "9" * 5000 + "}}", "too many digits"),
        ("[" * 100_000, "too many levels"),
        ('{"mqtt": {"host": "a\\u0000"}}', "mqtt.host: has a character"),
        ('{"mqtt": {"username": "\\ud800"}}', "mqtt.username: has a character"),
        ('{"mqtt": []}', "one object per section"),
    ],
)
def test_a_file_that_contradicts_itself_is_a_mistake(tmp_path: Path, text: str, sentence: str) -> None:
    """Neither the last of two values nor a number that JSON lacks is taken."""
    file = tmp_path / "config.json"
    file.write_text(text)
    assert any(sentence in mistake for mistake in mistakes(DeviceSettings, {}, file))


@pytest.mark.parametrize("program", PROGRAMS)
def test_true_is_no_number(program: type[Settings], tmp_path: Path) -> None:
    """Python counts true as 1, so that a port of true would be port 1."""
    file = tmp_path / "config.json"
    places = {place for place, each in fields(program, "") if bare(each) in (int, float)}
    for place in places:
        document: Any = True
        for name in reversed(place.lstrip(".").split(".")):
            document = {"face:x": document} if name in ("thresholds", "further_spaces") else document
            document = {name: document}
        file.write_text(json.dumps(document))
        key = place.rpartition(".")[2]
        assert [each for each in mistakes(program, {}, file) if f".{key}" in each], place


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_is_named(tmp_path: Path, encoding: str) -> None:
    """Windows editors write it."""
    file = tmp_path / "config.json"
    file.write_text("{}", encoding=encoding)
    (mistake,) = mistakes(BridgeProgram, {}, file)
    assert "UTF-16; save the file as UTF-8" in mistake


@pytest.mark.parametrize(
    "text", ['{"a"', '{"a": 1}', "[1", '"x"', "123", "null", "true", "1e400", "[]", "NaN"]
)
def test_a_password_that_looks_like_json_is_text(text: str) -> None:
    """Passwords, keys and user names are never read as JSON."""
    settings = load_settings(BridgeProgram, None, {"WFM_MQTT__PASSWORD": text, "WFM_MQTT__USERNAME": text})
    assert settings.mqtt.password == SecretStr(text)
    assert settings.mqtt.username == text
    key = load_settings(FleetSettings, None, {"WFM_FLEET__API_KEY": text.replace(" ", "")}).fleet.api_key
    assert key == SecretStr(text.replace(" ", ""))


@pytest.mark.parametrize("password", ["", " ", "a\n", "\na", "a\r\n", " a", "a\tb"])
def test_a_password_with_a_line_end_is_a_mistake(password: str) -> None:
    """A secret from a file often has one; the sentence does not show the password."""
    (mistake,) = mistakes(BridgeProgram, {"WFM_MQTT__PASSWORD": password})
    assert mistake.startswith("mqtt.password: is empty, has a line end")


def test_a_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """In every path; a home folder that is not known is a mistake."""
    monkeypatch.setenv("HOME", "/home/wfm")
    assert camera(data_dir="~/data").device.data_dir == Path("/home/wfm/data")
    assert camera(data_dir="/a/~").device.data_dir == Path("/a/~")
    (mistake,) = mistakes(DeviceSettings, CAMERA | {"WFM_DEVICE__DATA_DIR": "~no-such-user/data"})
    assert "the home folder of ~ is not known" in mistake
    (mistake,) = mistakes(BridgeProgram, {"WFM_MQTT__CA_FILE": ""})
    assert "mqtt.ca_file: is empty" in mistake


def test_a_camera_may_be_a_number(tmp_path: Path) -> None:
    """`"source": 0` is the camera 0; true is no camera."""
    file = tmp_path / "config.json"
    file.write_text('{"device": {"source": 0}}')
    assert load_settings(DeviceSettings, file, CAMERA).device.source == "0"
    file.write_text('{"device": {"source": true}}')
    assert mistakes(DeviceSettings, CAMERA, file)[0].startswith("device.source: ")


def test_a_variable_replaces_an_object_of_the_file(tmp_path: Path) -> None:
    """It is not merged into the object, so that an entry can be taken away."""
    file = tmp_path / "config.json"
    file.write_text('{"bridge": {"default_spaces": {"face:a": 1, "face:b": 2}, "poll_seconds": 3}}')
    bridge = load_settings(BridgeProgram, file, {"WFM_BRIDGE__DEFAULT_SPACES": '{"face:c": 3}'}).bridge
    assert (bridge.default_spaces, bridge.poll_seconds) == ({"face:c": 3}, 3)


def test_the_process_and_dotenv_files_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the environment that is passed in counts."""
    monkeypatch.setenv("WFM_MQTT__HOST", "process")
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("WFM_MQTT__HOST=dotenv")
    assert load_settings(BridgeProgram, None, {}).mqtt.host == BridgeProgram().mqtt.host == "127.0.0.1"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"face:x": 1, "face:x": 2}', "has face:x twice; remove one of them"),
        ('{"face:x": NaN}', "has NaN, which is no number of JSON"),
        ("[" * 100_000, "has too many levels"),
        ("null", "Input should be a valid dictionary"),
        ("123", "Input should be a valid dictionary"),
    ],
)
def test_an_object_in_a_variable_is_strict_json(text: str, sentence: str) -> None:
    """Its mistake names the variable, and a section in one variable is as strict."""
    (mistake,) = mistakes(BridgeProgram, {"WFM_BRIDGE__DEFAULT_SPACES": text})
    assert "WFM_BRIDGE__DEFAULT_SPACES" in mistake
    assert sentence in mistake
    whole = mistakes(BridgeProgram, {"WFM_BRIDGE": '{"default_spaces": ' + text + "}"})
    assert sentence.removeprefix("has ") in whole[0] or "default_spaces.face:x twice" in whole[0]


@pytest.mark.parametrize("text", ["null", "", "[]", '"x"', "{", "5"])
def test_a_section_that_is_no_object_is_a_mistake(text: str) -> None:
    """The sentence names how one setting is written."""
    (mistake,) = mistakes(BridgeProgram, {"WFM_MQTT": text})
    assert mistake.startswith("WFM_MQTT: expected a section as a JSON object; one setting is WFM_MQTT__NAME")


def test_all_kinds_of_mistakes_are_reported_at_once(tmp_path: Path) -> None:
    """A misspelt section of the file, misspelt variables, and values of both."""
    file = tmp_path / "config.json"
    file.write_text('{"mqqt": {}, "log": {"level": "loud"}}')
    found = mistakes(
        BridgeProgram,
        {
            "WFM_MQTT_HOST": "x",
            "WFM_MQTT__PORT": "0",
            "WFM_BRIDGE__DEFAULT_SPACES": '{"a": 1, "a": 2}',
            "wfm_mongo": "x",
            "WFM_MQTT__USERNAME": "a\0",
        },
        file,
    )
    expected = ("'mqqt'", "WFM_MQTT_HOST", "mqtt.port", "a twice", "wfm_mongo", "log.level", "mqtt.username")
    assert [part for part in expected if not any(part in mistake for mistake in found)] == []
    assert len(found) == len(expected)


@pytest.mark.parametrize("text", ["a\0", "\ud800", "a\udcff"])
def test_a_text_that_no_part_takes_is_a_mistake(text: str) -> None:
    """In a variable as in a file, also in a list; the sentence does not show the text."""
    for variable in ("WFM_MQTT__PASSWORD", "WFM_MQTT__CA_FILE"):
        (mistake,) = mistakes(BridgeProgram, {variable: text})
        assert "has a character that no setting can have" in mistake
        assert text not in mistake
