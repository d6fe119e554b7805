"""Read settings from environment variables; report the ones that name no setting."""

import re
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource

from .json_text import JsonTextError, parse_json

PREFIX = "WFM_"

# Kubernetes and Docker set these for a service that is called wfm-api, say.
_SERVICE = re.compile(r".+_(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT_\d+_(?:TCP|UDP|SCTP)(?:_\w+)?)")
_SERVICE_ADDRESS = re.compile(r"(?:tcp|udp|sctp)://")
_SIMILAR = 0.8


class EnvironmentSource(EnvSettingsSource):
    """The variables of `environ`, passed in rather than read from the process.

    `sections` are those of all programs. Once the settings are read, `mistakes` has a sentence for
    each variable that cannot be a setting.
    """

    def __init__(
        self, model: type[BaseSettings], sections: Collection[str], environ: Mapping[str, str]
    ) -> None:
        self.mistakes: list[str] = []
        self._environ = environ
        self._sections = sections
        self._fields = {
            name: field.annotation.model_fields
            for name, field in model.model_fields.items()
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        }
        # Each setting by its name without anything but letters and digits.
        self._joined = {
            re.sub("_", "", f"{section}{name}"): f"{PREFIX}{section}__{name}".upper()
            for section, fields in self._fields.items()
            for name in fields
        }
        self._origins: dict[str, str] = {}
        super().__init__(model)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        """Return the variables that may be settings by their names in lower case."""
        found: dict[str, str | None] = {}
        for variable, text in sorted(self._environ.items()):
            name = variable.lower()
            if self._may_be_setting(variable, text):
                earlier = self._origins.setdefault(name, variable)
                if earlier == variable:
                    found[name] = text
                else:
                    self.mistakes.append(f"{variable}: {earlier} sets the same; remove one of them")
        return found

    def __call__(self) -> dict[str, Any]:
        """Return the sections by name; report the ones that are no object."""
        sections: dict[str, Any] = super().__call__()
        for name in [name for name, values in sections.items() if not isinstance(values, dict)]:
            del sections[name]
            hint = f"one setting is {PREFIX}{name.upper()}__NAME"
            variable = self._origins[f"{PREFIX}{name}".lower()]
            self.mistakes.append(f"{variable}: expected a section as a JSON object; {hint}")
        return sections

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:  # noqa: ARG002
        """Decode a list or an object; the check of the field gets any other text."""
        if value.lstrip()[:1] not in tuple("[{"):
            return value
        try:
            return parse_json(value)
        except JsonTextError as error:
            if error.is_syntax:
                return value
            variable = next(self._origins[name] for name, text in self.env_vars.items() if text == value)
            self.mistakes.append(f"{variable}: {error}")
            return {}

    def _may_be_setting(self, variable: str, text: str) -> bool:
        """Return whether a variable names a section; report what resembles one."""
        name = variable.upper()
        if not name.startswith(PREFIX):
            self._check_prefix(variable)
            return False
        section, separator, _ = name.removeprefix(PREFIX).lower().partition("__")
        is_service = not separator and bool(_SERVICE.fullmatch(name) or _SERVICE_ADDRESS.match(text))
        if section in self._sections:
            return not is_service
        if separator:
            close = get_close_matches(section.strip("_"), self._sections, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"the sections are {', '.join(self._sections)}"
            self.mistakes.append(f"{variable}: there is no section {section!r}; {hint}")
        elif not is_service:
            self._check_separator(variable, section)
        return False

    def _check_separator(self, variable: str, rest: str) -> None:
        """Report a variable that resembles a setting, but has no double underscore."""
        first, _, key = rest.partition("_")
        close = get_close_matches(rest.replace("_", ""), self._joined, n=1, cutoff=_SIMILAR)
        if close:
            self._report(variable, self._joined[close[0]])
        elif first in self._sections and key:
            self._report(variable, f"{PREFIX}{first}__{key}".upper())
        else:
            for section, fields in self._fields.items():
                if rest in fields:
                    self._report(variable, f"{PREFIX}{section}__{rest}".upper())
                    return

    def _check_prefix(self, variable: str) -> None:
        """Report the name of a setting behind a prefix that is almost ours."""
        joined = re.sub(r"[\W_]", "", variable).lower().removeprefix("wfm")
        if "wfm" in variable.lower()[:4] and joined in self._joined:
            self._report(variable, self._joined[joined])
            return
        found = re.fullmatch(r"([A-Za-z]{2,4})_+([A-Za-z]+)__(\w+)", variable)
        if found is None or not get_close_matches(found[1].upper(), [PREFIX.strip("_")], cutoff=0.6):
            return
        section, key = found[2].lower(), found[3].lower()
        if section in self._sections and key in self._fields.get(section, {key: None}):
            self._report(variable, f"{PREFIX}{section}__{key}".upper())

    def _report(self, variable: str, meant: str) -> None:
        self.mistakes.append(f"{variable}: is not a setting; did you mean {meant}?")
