"""Read a program's settings: a JSON file, and the environment over it.

A file has a section per program; `WFM_MQTT__HOST=broker` sets `host` in section `mqtt`
in any case of letters (pydantic-settings' convention). Every mistake is reported at once, in
one sentence each.
"""

import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from .environment import PREFIX, EnvironmentSource
from .masking import hide_secrets_of, mask
from .settings_file import SettingsFileError, SettingsFileSource

_UNUSABLE = re.compile("[\0\ud800-\udfff]")
SECTIONS = (
    "mqtt", "mongo", "registry", "tracking", "search", "bridge", "api", "device", "worker", "fleet", "log",
)  # fmt: skip
"""Every section that a configuration file may have; each program reads its own."""

S = TypeVar("S", bound="Settings")
Port = Annotated[int, Field(ge=1, le=65535)]


def _check_key(key: SecretStr) -> SecretStr:
    text = key.get_secret_value()
    if not text or not all("!" <= letter <= "~" for letter in text):
        raise ValueError("a key has no blanks, no line ends and no letters beyond ASCII, and is not empty")
    return key


BearerKey = Annotated[SecretStr, AfterValidator(_check_key)]
"""A key that fits into the header Authorization."""


def _check_login(text: SecretStr | str) -> Any:
    plain = text.get_secret_value() if isinstance(text, SecretStr) else text
    if not plain or plain != plain.strip() or any(letter < " " for letter in plain):
        raise ValueError(
            "is empty, has a line end, or begins or ends with a blank, as a file or a shell easily adds: "
            "remove that, or leave the setting out"
        )
    return text


Login = Annotated[str, AfterValidator(_check_login)]
Password = Annotated[SecretStr, AfterValidator(_check_login)]


def _refuse_empty(value: Any) -> Any:
    if isinstance(value, str) and not value.strip():
        raise ValueError("is empty: leave the setting out, or give a path")
    return value


def _expand_home(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ValueError("the home folder of ~ is not known: give the whole path") from error


FilePath = Annotated[Path, BeforeValidator(_refuse_empty), AfterValidator(_expand_home)]
"""The path of a file or a folder; `~` is the home folder."""


_LABEL = r"[\w-]{1,63}"
_IPV6 = r"[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(?:%\w+)?"


def _check_host(host: str) -> str:
    if not re.fullmatch(
        r"(?:[\w-]{1,63}\.)*[\w-]{1,63}\.?|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(?:%\w+)?", host
    ):
        raise ValueError("a host is a name or an IP address, without scheme, login and port")
    return host


Host = Annotated[str, AfterValidator(_check_host)]


class SettingsError(ValueError):
    """Wrong settings: `mistakes` has one sentence per mistake."""

    def __init__(self, mistakes: list[str]) -> None:
        self.mistakes = [mask(mistake) for mistake in mistakes]
        super().__init__("\n".join(self.mistakes))


class Section(BaseModel):
    """One section: frozen, and an unknown key is a mistake."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_unusable(cls, value: Any, about: ValidationInfo) -> Any:
        """Refuse a text that no file, broker or database takes, and true for 1."""
        if isinstance(value, bool) and cls.model_fields[about.field_name or ""].annotation is not bool:
            raise ValueError(f"Input should not be {str(value).lower()}")
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and _UNUSABLE.search(text):
                raise ValueError("has a character that no setting can have: NUL, or a byte that is not UTF-8")
        return value


class Settings(BaseSettings):
    """The sections that one program reads."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="ignore",
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        # One split: what follows the section is the key, whatever it contains.
        env_nested_max_split=1,
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the argument `sources`; by default the arguments are the settings."""
        sources: tuple[PydanticBaseSettingsSource, ...] = init_settings().get("sources", (init_settings,))
        return sources


class MqttSettings(Section):
    """The broker; `ca_file` turns TLS on, `cert_file` and `key_file` are the client's."""

    host: Host = "127.0.0.1"
    port: Port = 1883
    username: Login | None = None
    password: Password | None = None
    ca_file: FilePath | None = None
    cert_file: FilePath | None = None
    key_file: FilePath | None = None
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
    """Logs on standard error, as one JSON object a line or as text to read."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"


def load_settings(model: type[S], file: Path | None, environ: Mapping[str, str]) -> S:
    """Return the settings of `model` from `file` with `environ` over it.

    The file is JSON and may be None. From then on `mask` hides their secrets. Raises SettingsError with one
    sentence per mistake.
    """
    try:
        document = SettingsFileSource(model, file)
    except SettingsFileError as error:
        raise SettingsError([str(error)]) from error
    variables = EnvironmentSource(model, SECTIONS, environ)
    settings, wrong = None, []
    try:
        settings = model(sources=(variables, document))
    except ValidationError as error:
        wrong = [_sentence(model, each) for each in error.errors()]
    unknown = [_unknown_section(str(file), name) for name in document.sections if name not in SECTIONS]
    mistakes = unknown + variables.mistakes + wrong
    if settings is None or mistakes:
        raise SettingsError(mistakes)
    hide_secrets_of(settings)
    return settings


def _unknown_section(where: str, name: str) -> str:
    hint = _hint(name, SECTIONS) or f"; the sections are {', '.join(SECTIONS)}"
    return f"{where}: there is no section {name!r}{hint}"


def _sentence(model: type[Settings], mistake: Any) -> str:
    path = [str(part) for part in mistake["loc"]]
    variable = PREFIX + "__".join(path[:2]).upper()
    message = mistake["msg"].removeprefix("Value error, ")
    if mistake["type"] == "extra_forbidden":
        message = f"there is no such setting{_hint(path[-1], _keys_of(model, path[:-1]))}"
    return f"{'.'.join(path)}: {message} (in the configuration file, or {variable} in the environment)"


def _keys_of(model: type[BaseModel], path: list[str]) -> list[str]:
    """Return the keys of the section, or of the object in a section, at `path`."""
    for part in path:
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)


def _hint(name: str, known: list[str] | tuple[str, ...]) -> str:
    close = get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
