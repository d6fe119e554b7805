"""Read a configuration file; say line and column of what is not JSON."""

import json
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from .json_text import JsonTextError, parse_json

_BOM = b"\xef\xbb\xbf"


class SettingsFileError(ValueError):
    """A file that cannot be read or has no settings; names the file and the place."""


class SettingsFileSource(PydanticBaseSettingsSource):
    """The `sections` of a configuration file; without a file they are empty."""

    def __init__(self, model: type[BaseSettings], file: Path | None) -> None:
        super().__init__(model)
        self.sections = _read_sections(file) if file else {}

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002
        """Return a section without the settings that a variable replaces.

        A section that is absent counts as empty, so that its missing keys are reported one by one.
        """
        replaced = self.current_state.get(field_name, {})
        section = self.sections.get(field_name, {})
        return {key: value for key, value in section.items() if key not in replaced}, field_name, False

    def __call__(self) -> dict[str, Any]:
        """Return the sections of the model by name."""
        fields = self.settings_cls.model_fields
        return {name: self.get_field_value(field, name)[0] for name, field in fields.items()}


def _read_sections(file: Path) -> dict[str, dict[str, Any]]:
    """Return the sections in `file` by name. Raises SettingsFileError."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise SettingsFileError(f"{file}: cannot be read ({error.strerror})") from error
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in data[:4]:
        raise SettingsFileError(f"{file}: line 1, column 1: is UTF-16; save the file as UTF-8")
    if data.startswith(_BOM):
        raise SettingsFileError(
            f"{file}: line 1, column 1: a byte order mark; save the file as UTF-8 without it"
        )
    document = _parse(file, _decode(file, data))
    if not isinstance(document, dict) or not all(isinstance(section, dict) for section in document.values()):
        raise SettingsFileError(f"{file}: expected an object with one object per section")
    return document


def _decode(file: Path, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line, column = _place(data[: error.start].decode(), error.start)
        raise SettingsFileError(f"{file}: line {line}, column {column}: not UTF-8") from error


def _parse(file: Path, text: str) -> Any:
    try:
        return parse_json(text)
    except JsonTextError as error:
        if not isinstance(error.__cause__, json.JSONDecodeError):
            raise SettingsFileError(f"{file}: {error}") from error
        position, reason = _explain(text, error.__cause__)
        line, column = _place(text, position)
        raise SettingsFileError(f"{file}: line {line}, column {column}: {reason}") from error


def _explain(text: str, error: json.JSONDecodeError) -> tuple[int, str]:
    """Return position and reason of a mistake; name comments and trailing commas."""
    rest = text[error.pos :].lstrip()
    if rest.startswith(("//", "/*", "#")):
        return len(text) - len(rest), "a comment, and JSON has none; remove it"
    # Up to Python 3.12 the error stands behind a trailing comma, from 3.13 on at the comma itself.
    before = text[: error.pos].rstrip()
    if rest.startswith(("}", "]")) and before.endswith(","):
        return len(before) - 1, f"a comma before {rest[0]!r}; remove it"
    if rest.startswith(",") and rest[1:].lstrip().startswith(("}", "]")):
        return len(text) - len(rest), f"a comma before {rest[1:].lstrip()[0]!r}; remove it"
    return error.pos, f"is not JSON ({error.msg})"


def _place(text: str, position: int) -> tuple[int, int]:
    """Return line and column of a position, both from 1."""
    return text.count("\n", 0, position) + 1, position - text.rfind("\n", 0, position)
