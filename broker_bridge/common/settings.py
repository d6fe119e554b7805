"""How every program reads its settings: a JSON file with one section per program, environment over it.

`WFM_MQTT__HOST=broker` sets `host` in section `mqtt`. All mistakes are reported at once, a sentence each.
The environment names are part of what operators rely on, which is why this lies beside the wire.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)

PREFIX = "WFM_"
SECTIONS = (
    "mqtt", "mongo", "registry", "tracking", "search", "bridge", "api", "device", "worker", "fleet", "log",
)  # fmt: skip
"""Every section that a configuration file may have; each program reads those that it knows."""

S = TypeVar("S", bound="Settings")
Port = Annotated[int, Field(ge=1, le=65535)]


def _check_key(key: SecretStr) -> SecretStr:
    text = key.get_secret_value()
    if not text or not all("!" <= letter <= "~" for letter in text):
        raise ValueError("a key has no blanks, no line ends and no letters beyond ASCII, and is not empty")
    return key


BearerKey = Annotated[SecretStr, AfterValidator(_check_key)]
"""A key that can be sent in the header Authorization."""


class SettingsError(ValueError):
    """What is wrong with the settings: `mistakes` has one sentence per mistake."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


class Section(BaseModel):
    """One section: frozen, and a key that nobody reads is a mistake."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class Settings(BaseModel):
    """The sections that one program reads."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class MqttSettings(Section):
    """The broker. TLS is on as soon as `ca_file` is set; `cert_file` and `key_file` are the client's own."""

    host: str = "127.0.0.1"
    port: Port = 1883
    username: str | None = None
    password: SecretStr | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    keepalive_seconds: Annotated[int, Field(ge=5, le=120)] = 20

    @model_validator(mode="after")
    def _key_pair_and_authority(self) -> "MqttSettings":
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file belong together: set both or neither")
        if self.cert_file is not None and self.ca_file is None:
            raise ValueError(
                "a client certificate needs ca_file, the authority that the broker is checked against"
            )
        return self


class LogSettings(Section):
    """Logs go to standard error: `json` has one object a line, `text` is for people."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"


def load_settings(model: type[S], file: Path | None, environ: Mapping[str, str]) -> S:
    """The settings of `model` from `file` (JSON, may be None) with `environ` over it.

    Raises SettingsError with one sentence per mistake.
    """
    # Every section is there, if empty: then what a section lacks is told key by key.
    document = {name: {} for name in model.model_fields} | (_read_file(file) if file else {})
    mistakes = [
        f"{file}: there is no section {name!r}; the sections are {', '.join(SECTIONS)}"
        for name in document
        if name not in SECTIONS
    ]
    for name, text in sorted(environ.items()):
        section, separator, key = name.removeprefix(PREFIX).lower().partition("__")
        if name.startswith(PREFIX) and separator and section in model.model_fields:
            document[section] = {**document.get(section, {}), key: _read_variable(text)}
    try:
        settings = model.model_validate(document)
    except ValidationError as error:
        raise SettingsError(mistakes + [_sentence(problem) for problem in error.errors()]) from error
    if mistakes:
        raise SettingsError(mistakes)
    return settings


def _read_file(file: Path) -> dict[str, Any]:
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError([f"{file}: cannot be read ({error.strerror})"]) from error
    except ValueError as error:
        raise SettingsError([f"{file}: is not JSON ({error})"]) from error
    if not isinstance(document, dict) or not all(isinstance(section, dict) for section in document.values()):
        raise SettingsError([f"{file}: expected an object with one object per section"])
    return document


def _read_variable(text: str) -> Any:
    """Lists and objects are written as JSON; all else is text that the field's type reads."""
    if text[:1] in ("[", "{"):
        try:
            return json.loads(text)
        except ValueError:
            # Not JSON after all: let the field say what it expected.
            return text
    return text


def _sentence(problem: Any) -> str:
    path = [str(part) for part in problem["loc"]]
    variable = PREFIX + "__".join(path[:2]).upper()
    message = problem["msg"].removeprefix("Value error, ")
    return f"{'.'.join(path)}: {message} (in the configuration file, or {variable} in the environment)"
