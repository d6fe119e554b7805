"""Passwords do not appear in text for people, whatever characters they have."""

import io
import json
import logging
import string

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import SecretStr

from broker_bridge.common import masking
from broker_bridge.common.logs import JsonFormatter, TextFormatter
from broker_bridge.common.masking import (
    MaskedStream,
    hide_secrets_of,
    mask,
    mask_address,
    needs_encoding,
)
from broker_bridge.common.settings import MqttSettings, Section, SettingsError

SECRET = "S3cr37"
BETWEEN = [*"/#?@:% []\\é\n;,", "%2F", "://", " ! ", "'\"", "&user="]
PASSWORDS = [
    *(f"{SECRET}{letters}{SECRET}" for letters in BETWEEN),
    *(f"{letter}{SECRET}" for letter in "@/[#?"),
]
PRINTABLE = st.text(
    string.digits + string.ascii_letters + string.punctuation + " äß语", min_size=6, max_size=24
)


class Camera(Section):
    """Settings with secrets of each kind."""

    source: str
    password: SecretStr | None = None


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masking, "_known", masking._KnownSecrets())


@pytest.mark.parametrize(
    "address",
    [
        "rtsp://admin:{}@10.0.0.5:554/stream",
        "http://{}@10.0.0.5/x?channel=1",
        "mongodb://admin:{}@10.0.0.5,10.0.0.6:27018/wfm?replicaSet=rs0",
        "mongodb+srv://admin:{}@10.0.0.5",
        "mqtts://admin:{}@[::1]:8883",
        "rtsp://admin:{}@10.0.0.5/user=admin_password={}_channel=1.sdp",
        "rtsp://10.0.0.5/Streaming?user=admin&pwd={}",
        "rtsp://10.0.0.5/live/user/admin/password/{}/ch1",
        "rtsp://10.0.0.5/cam#token={}",
        "admin:{}@10.0.0.5/stream",
        "rtsp:/admin:{}@10.0.0.5/stream",
    ],
)
def test_an_address_is_shown_without_its_login(address: str) -> None:
    """Logins before the last `@`, in the path and in the query are hidden."""
    for password in PASSWORDS:
        shown = mask_address(address.replace("{}", password))
        assert SECRET not in shown
        assert "admin:" not in shown


def test_a_login_without_a_host_is_hidden() -> None:
    """A password with an `@` may look like a host; any other is hidden."""
    for password in PASSWORDS:
        assert "@" in password or SECRET not in mask_address(f"rtsp://admin:{password}")


def test_the_host_and_the_path_stay() -> None:
    """What tells one camera from another is not a secret."""
    assert mask_address("rtsp://u:p/w@cam.local:554/ch/1?x=1#y") == "rtsp://cam.local:554/ch/1"
    assert mask_address("rtsp://[fe80::1%eth0]:554/ch1") == "rtsp://[fe80::1%eth0]:554/ch1"
    assert mask_address("/videos/door@night.mp4") == "/videos/door@night.mp4"
    assert mask_address("mongodb://u:p@h1,h2:27018/wfm?replicaSet=x") == "mongodb://h1,h2:27018/wfm"


@given(PRINTABLE)
def test_no_printable_password_survives(password: str) -> None:
    """Neither an address nor a sentence around it shows the password."""
    assume(password not in "rtsp://admin@camera:554/stream cannot be opened: check it ***")
    source = f"rtsp://admin:{password}@camera:554/stream"
    assert password not in mask_address(source)
    assert password not in mask(f"{source} cannot be opened: check it")
    assert password not in mask(f"error={source!r} again")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("failed: mongodb://a:b@c@h/x?authSource=admin", "failed: mongodb://***@h/x?authSource=***"),
        ("GET http://cam/x?token=abc def", "GET http://cam/x?token=***"),
        ("rtspsrc user-id=a user-pw=b ! appsink", "rtspsrc user-id=***"),
        ('{"password": "abc", "x": 1}', '{"password": ***'),
        ("lookup of admin:pw@cam failed", "lookup of ***@cam failed"),
        ("link lost broker=127.0.0.1:1883 error='x'", "link lost broker=127.0.0.1:1883 error='x'"),
        ("job done key=5 user_id='E-1'", "job done key=5 user_id='E-1'"),
        ("see https://docs.example/x for more", "see https://docs.example/x for more"),
    ],
)
def test_text_is_masked_by_line(text: str, shown: str) -> None:
    """What has no secret stays; masking twice changes nothing more."""
    assert mask(text) == shown
    assert mask(f"first\n{text}\nlast") == f"first\n{shown}\nlast"
    assert mask(shown) == shown


def test_the_secrets_of_the_settings_are_hidden_everywhere() -> None:
    """A known secret is hidden where no pattern finds it, in each spelling."""
    for password in PASSWORDS:
        hide_secrets_of(Camera(source=f"rtsp://admin:{password}@cam/x", password=SecretStr("mqtt-S3cr37")))
        for text in (f"a {password} b", repr(password), json.dumps(password), "got mqtt-S3cr37"):
            assert SECRET not in mask(text)


def test_the_secrets_of_a_pipeline_are_hidden() -> None:
    """Properties of a GStreamer pipeline hold logins."""
    hide_secrets_of(Camera(source='rtspsrc location=rtsp://a:S3cr37x@h user-pw="b S3cr37y" ! appsink'))
    assert "S3cr37" not in mask("gst: S3cr37x and b S3cr37y")


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("rtsp://admin:p%2Fw@cam/x", False),
        ("rtsp://admin:pw!$@cam/x", False),
        ("rtsp://cam/x", False),
        ("rtsp://admin:p/w@cam/x", True),
        ("rtsp://admin:p@w@cam/x", True),
        ("rtsp://admin:100%@cam/x", True),
        ("rtsp://admin:p/w", True),
    ],
)
def test_a_login_that_needs_encoding_is_found(address: str, expected: bool) -> None:
    """Only characters that end a login too early need it."""
    assert needs_encoding(address) is expected


@pytest.fixture
def record() -> logging.LogRecord:
    error = ValueError("Port could not be cast: rtsp://admin:pa'ss/w@cam")
    info = (ValueError, error, None)
    return logging.LogRecord("x", logging.ERROR, __file__, 1, "camera lost url=%r", ("a://u:pa@ss@h",), info)


def test_logs_are_masked(record: logging.LogRecord) -> None:
    """Messages and tracebacks, as text and as JSON."""
    entry = json.loads(JsonFormatter().format(record))
    assert entry["message"] == "camera lost url='a://***@h'"
    assert "ValueError: Port could not be cast" in entry["error"]
    for text in (entry["error"], TextFormatter().format(record)):
        assert "pa'ss" not in text
        assert "pa@ss" not in text


def test_standard_error_is_masked() -> None:
    """What any library prints there goes through the mask."""
    out = io.StringIO()
    stream = MaskedStream(out)
    print("at rtsp://u:p/w@h", file=stream)
    stream.writelines(["x://a:b@c\n"])
    assert out.getvalue() == "at rtsp://***@h\nx://***@c\n"


def test_a_mistake_in_the_settings_is_masked() -> None:
    """A sentence may quote a key or a value."""
    assert "p/w" not in str(SettingsError(["mqtt.x: rtsp://u:p/w@h"]))


@pytest.mark.parametrize(
    "host", ["mqtt://admin:S3cr37@broker", "admin:S3cr37@broker", "broker/x", "", " ", "a b", "h:1"]
)
def test_a_broker_host_is_no_address(host: str) -> None:
    """The host is shown in logs, so that it may hold no login."""
    with pytest.raises(ValueError, match="name or an IP address") as refused:
        MqttSettings(host=host)
    sentence = str(refused.value.errors(include_input=False)[0]["msg"])  # type: ignore[attr-defined]
    assert SECRET not in sentence
