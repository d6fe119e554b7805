"""Hide passwords, keys and logins in text for people: logs, errors, reports.

`mask_address` takes one address, such as a camera's URL. `mask` takes any text and hides the secrets of this
program's settings too. Neither parses: a parser raises on the very passwords that need hiding.
"""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, TextIO
from urllib.parse import quote, unquote

from pydantic import BaseModel, SecretStr

HIDDEN = "***"
ENCODING_HINT = (
    "in the user name and the password of an address write / ? # @ : % [ ] and blanks percent-encoded, "
    "such as %2F for /"
)

# A shorter secret stands in too many words.
_SHORTEST_SECRET = 6
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
# Hosts of an address, several for MongoDB: names or IPv4, or IPv6 in brackets, each with a port.
_HOST = r"(?:\[[0-9A-Fa-f:.]+(?:%\w+)?\]|[\w.-]*)(?::\d{1,5})?"
_HOSTS = re.compile(rf"{_HOST}(?:,{_HOST})*")
# Names of parameters that hold a login in the addresses of camera vendors.
_LOGIN_NAME = (
    r"[\w.-]*(?:pass|pas|pwd|psw|pw|user|usr|uid|login|logon|account|key|token|auth|secret|sig|cred|session|"
    r"ticket|jwt|nonce|pin)[\w.-]*"
)
_LOGIN_PARAMETER = re.compile(rf"{_LOGIN_NAME}(?:=|%3D|:)|(?<=[/?&;]){_LOGIN_NAME}/", re.IGNORECASE)
# A login with this is no login in front of a host: the `@` stands in the value of a parameter.
_QUERY_LOGIN = re.compile(rf"[/?&;#_]{_LOGIN_NAME}(?:=|%3D)|/{_LOGIN_NAME}/", re.IGNORECASE)
# Text without an address: only names that no log line of ours has.
_SECRET_FIELD = re.compile(
    r"(?<![a-z0-9])(?:pass|passwd|password|passphrase|pwd|user-pw|user-id|proxy-pw|proxy-id|token|access_token|"
    r"secret|api_?key|auth|sig|signature|credentials?)"
    r"(?:\s*=\s*|[\"']\s*:\s*)(?=\S)",
    re.IGNORECASE,
)
_BARE_LOGIN = re.compile(r"[^\s'\"=(]*:[^\s]*@(?=\S)")
_PIPELINE_PROPERTY = re.compile(
    rf"{_LOGIN_NAME}\s*=\s*(\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|\S+)", re.IGNORECASE
)


def mask_address(address: str) -> str:
    """Return an address without login, query and fragment.

    Everything up to the last `@` counts as login. A text without a valid host is hidden, and so is
    the rest of a path from the name of a login's parameter on.
    """
    scheme = _SCHEME.match(address)
    rest = address[scheme.end() :] if scheme else address
    login, at, place = rest.rpartition("@")
    if scheme is None and not (at and ":" in login):
        # No address: a file's name, say.
        return _hide_parameter(rest)
    prefix = scheme[0] if scheme else ""
    if at and _QUERY_LOGIN.search(login):
        return prefix + HIDDEN
    host, slash, path = place.partition("/")
    if at:
        # Behind a login the query may begin at once.
        host, ended, _ = _cut_query(host)
        if ended:
            slash = path = ""
    if not _HOSTS.fullmatch(host):
        return prefix + HIDDEN
    return prefix + host + _hide_parameter(slash + _cut_query(path)[0])


def needs_encoding(address: str) -> bool:
    """Return whether characters in an address's login end it too early."""
    scheme = _SCHEME.match(address)
    rest = address[scheme.end() :] if scheme else address
    login, at, place = rest.rpartition("@")
    if not at:
        return scheme is not None and not _HOSTS.fullmatch(re.split(r"[/?#]", place, maxsplit=1)[0])
    user, _, password = login.partition(":")
    return any(
        re.search(r"%(?![0-9A-Fa-f]{2})|[^\w%.~!$&'()*+,;=-]", part, re.ASCII) for part in (user, password)
    )


def _cut_query(text: str) -> tuple[str, str, str]:
    found = re.search(r"[?#]", text)
    return (text[: found.start()], found[0], text[found.end() :]) if found else (text, "", "")


def _hide_parameter(text: str) -> str:
    found = _LOGIN_PARAMETER.search(text)
    return text[: found.end()] + HIDDEN if found else text


def mask(text: str) -> str:
    """Return `text` without secrets.

    Hidden are those of `hide_secrets_of`, and in each line logins of addresses and secret parameters.
    """
    if _known.pattern is not None:
        text = _known.pattern.sub(HIDDEN, text)
    return "".join(_mask_line(line) for line in re.split(r"([\r\n]+)", text))


def _mask_line(line: str) -> str:
    scheme = _SCHEME.search(line)
    if scheme:
        before, rest = line[: scheme.end()], line[scheme.end() :]
        # The `@` of a sentence has no host behind it.
        login = re.match(r".*@(?=[\w\[])", rest)
        if login and _QUERY_LOGIN.search(login[0]):
            return before + HIDDEN
        if login:
            before, rest = f"{before}{HIDDEN}@", rest[login.end() :]
        found = _LOGIN_PARAMETER.search(_first_word(rest))
        if found and not rest.startswith(HIDDEN, found.end()):
            rest = rest[: found.end()] + HIDDEN
        line = before + rest
    else:
        line = _BARE_LOGIN.sub(f"{HIDDEN}@", line)
    field = _SECRET_FIELD.search(line)
    if field and not line.startswith(HIDDEN, field.end()):
        line = line[: field.end()] + HIDDEN
    return line


def _first_word(text: str) -> str:
    return re.split(r"[\s'\",]", text, maxsplit=1)[0]


class _KnownSecrets:
    """The secrets of this process: one set, as there is one standard error."""

    pattern: re.Pattern[str] | None = None


_known = _KnownSecrets()


def hide_secrets_of(settings: BaseModel) -> None:
    """Hide the secrets in `settings` from now on in every masked text.

    Each of their spellings is hidden. They replace the secrets of an earlier call.
    """
    spellings = {form for secret in secrets_in(settings) for form in _spellings(secret)}
    longest_first = sorted(
        (form for form in spellings if len(form) >= _SHORTEST_SECRET), key=len, reverse=True
    )
    _known.pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None


def _spellings(secret: str) -> Iterator[str]:
    yield from (secret, unquote(secret), quote(secret), quote(secret, safe=""))
    yield from (json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], repr(secret)[1:-1])


def secrets_in(settings: BaseModel) -> set[str]:
    """Return every secret in `settings`, also passwords in addresses and pipelines."""
    found: set[str] = set()
    for value in _values(settings):
        if isinstance(value, SecretStr):
            secret = value.get_secret_value()
            found.add(secret)
            found.update(secrets_of(secret))
        elif isinstance(value, str):
            found.update(secrets_of(value))
    return found


def _values(value: Any) -> Iterator[Any]:
    if isinstance(value, BaseModel):
        value = [getattr(value, name) for name in type(value).model_fields]
    elif isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for each in value:
            yield from _values(each)
    else:
        yield value


def secrets_of(source: str) -> Iterator[str]:
    """Yield the secrets of an address or a pipeline.

    They are passwords, and values of login parameters.
    """
    for found in _PIPELINE_PROPERTY.finditer(source):
        value = found[1].strip("\"'")
        yield from (value, *re.split(r"[&;]", value)[:1])
    for scheme in _SCHEME.finditer(source):
        login, at, _ = source[scheme.end() :].rpartition("@")
        if at:
            yield login
            yield login.partition(":")[2]


class MaskedStream:
    """A text stream that masks what is written to it.

    In all else it is the stream `unmasked`.
    """

    def __init__(self, stream: TextIO) -> None:
        self.unmasked = stream

    def write(self, text: str) -> int:
        self.unmasked.write(mask(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.unmasked, name)
