"""Read settings from environment variables; report the ones that name no setting."""

import re
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel

from .json_text import JsonTextError, parse_json

PREFIX = "WFM_"

# Kubernetes and Docker set these for a service that is called wfm-api, say.
_SERVICE = re.compile(r".+_(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT_\d+_(?:TCP|UDP|SCTP)(?:_\w+)?)")
_SERVICE_ADDRESS = re.compile(r"(?:tcp|udp|sctp)://")
_SIMILAR = 0.8

Values = dict[str, dict[str, Any]]


class EnvironmentReader:
    """The variables of `environ` for the sections of `model`.

    `sections` are those of all programs.
    """

    def __init__(self, model: type[BaseModel], sections: Collection[str], environ: Mapping[str, str]) -> None:
        self.values: Values = {}
        self.mistakes: list[str] = []
        self._sections = sections
        self._fields = {
            name: field.annotation.model_fields
            for name, field in model.model_fields.items()
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        }
        self._origins: dict[tuple[str, str], str] = {}
        for variable, text in sorted(environ.items()):
            self._read(variable, text)

    def _read(self, variable: str, text: str) -> None:
        name = variable.upper()
        if not name.startswith(PREFIX):
            self._check_prefix(variable)
            return
        rest = name.removeprefix(PREFIX)
        section, separator, key = (part.lower() for part in rest.partition("__"))
        if separator:
            self._read_key(variable, section, key, text)
        elif section in self._sections:
            self._read_section(variable, section, text)
        elif not (_SERVICE.fullmatch(name) or _SERVICE_ADDRESS.match(text)):
            self._check_separator(variable, section)

    def _read_key(self, variable: str, section: str, key: str, text: str) -> None:
        if section not in self._sections:
            close = get_close_matches(section.strip("_"), self._sections, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"the sections are {', '.join(self._sections)}"
            self.mistakes.append(f"{variable}: there is no section {section!r}; {hint}")
            return
        earlier = self._origins.setdefault((section, key), variable)
        if earlier != variable:
            self.mistakes.append(f"{variable}: {earlier} sets the same; remove one of them")
            return
        if section not in self._fields:
            return
        field = self._fields[section].get(key)
        value: Any = text
        if field is not None and _is_structured(field.annotation) and text.lstrip()[:1] in tuple("[{"):
            value = self._parse(variable, text)
        self.values.setdefault(section, {})[key] = value

    def _read_section(self, variable: str, section: str, text: str) -> None:
        """Read a whole section, an object in JSON."""
        if _SERVICE_ADDRESS.match(text):
            return
        value = self._parse(variable, text) if text.lstrip().startswith("{") else text
        if not isinstance(value, dict):
            hint = f"one setting is {PREFIX}{section.upper()}__NAME"
            self.mistakes.append(f"{variable}: expected a section as a JSON object; {hint}")
        elif section in self._fields:
            self.values[section] = value | self.values.get(section, {})

    def _parse(self, variable: str, text: str) -> Any:
        try:
            return parse_json(text)
        except JsonTextError as error:
            if error.is_syntax:
                # The field's own check says what it expects.
                return text
            self.mistakes.append(f"{variable}: {error}")
            return {}

    def _check_separator(self, variable: str, rest: str) -> None:
        """Report a variable that resembles a setting, but has no double underscore."""
        first, _, key = rest.partition("_")
        joined = {
            re.sub("_", "", f"{section}{name}"): f"{PREFIX}{section}__{name}".upper()
            for section, fields in self._fields.items()
            for name in fields
        }
        close = get_close_matches(rest.replace("_", ""), joined, n=1, cutoff=_SIMILAR)
        if close:
            self._report(variable, joined[close[0]])
        elif first in self._sections and key:
            self._report(variable, f"{PREFIX}{first}__{key}".upper())
        else:
            for section, fields in self._fields.items():
                if rest in fields:
                    self._report(variable, f"{PREFIX}{section}__{rest}".upper())
                    return

    def _check_prefix(self, variable: str) -> None:
        """Report the name of a setting behind a prefix that is almost ours."""
        found = re.fullmatch(r"([A-Za-z]{2,4})_+([A-Za-z]+)__(\w+)", variable)
        if found is None or not get_close_matches(found[1].upper(), [PREFIX.strip("_")], cutoff=0.6):
            return
        section, key = found[2].lower(), found[3].lower()
        if section in self._sections and key in self._fields.get(section, {key: None}):
            self._report(variable, f"{PREFIX}{section}__{key}".upper())

    def _report(self, variable: str, meant: str) -> None:
        self.mistakes.append(f"{variable}: is not a setting; did you mean {meant}?")


def _is_structured(annotation: Any) -> bool:
    """Return whether a setting may be a list or an object.

    A variable has it as JSON.
    """
    if isinstance(annotation, type) and issubclass(annotation, (BaseModel, dict, list, tuple)):
        return True
    origin = getattr(annotation, "__origin__", None)
    return origin in (dict, list, tuple) or any(_is_structured(part) for part in get_args(annotation))
