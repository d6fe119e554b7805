"""Call the REST API and classify its errors.

The client waits while the API is unavailable, and tells refusals from errors that end the run.
"""

import json
import random
import ssl
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

from broker_bridge.common.retry import Backoff
from broker_bridge.contract.spaces import SpaceRecord

from .errors import ApiRefusedError, CannotRunError
from .settings import FleetSection

M = TypeVar("M", bound=BaseModel)
Result = Literal["created", "changed", "unchanged", "refused"]

IDENTITIES_PATH = "/api/v1/identities"
DEVICES_PATH = "/api/v1/devices"
SPACES_PATH = "/api/v1/spaces"
_ACCESS = frozenset({401, 403})
_NOT_FOUND = 404
_BUSY = frozenset({429, 502, 503, 504})
_CONNECT_SECONDS = 5.0
_BACKOFF = Backoff(base=0.5, cap=15.0)
_JSON = {"Content-Type": "application/json"}


class _BulkAnswer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class LookAlikeItem(_BulkAnswer):
    """Another identity with a similar face, by cosine similarity."""

    nearest_user_id: str
    similarity: float
    space: str


class ImportItem(_BulkAnswer):
    """The result for identity number `index` of a request."""

    index: int
    result: Result
    version: int | None = None
    code: str = ""
    detail: str = ""
    look_alikes: list[LookAlikeItem] = []
    not_compared: list[str] = []
    similar_ids: list[str] = []


class ImportAnswer(_BulkAnswer):
    items: list[ImportItem]


class ExportedPage(_BulkAnswer):
    items: list[dict[str, Any]]
    next_cursor: str | None


class RegisteredSpace(SpaceRecord):
    """A space as the registry has it: its effective limits, and what it contains.

    `devices` declare it; `default` is the space that the API enrolls photos in.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    templates: int = 0
    identities: int = 0
    devices: tuple[str, ...] = ()
    default: bool = False


class _SpaceList(_BulkAnswer):
    items: list[RegisteredSpace]


class BegunEpoch(_BulkAnswer):
    epoch: str
    version: int


class AddedPhoto(_BulkAnswer):
    """The new version of the identity, and those that the photo resembles."""

    version: int
    look_alikes: list[LookAlikeItem] = []
    not_compared: list[str] = []


class _ApiProblem(_BulkAnswer):
    code: str = ""
    detail: str = ""


class ApiClient:
    """Requests to one API, one at a time. Use as a context manager.

    Every method raises CannotRunError, also when the API stays unavailable for longer than
    `patience_seconds`. `report` gets a sentence when the API becomes unavailable, and one when it answers
    again.
    """

    def __init__(
        self,
        settings: FleetSection,
        *,
        report: Callable[[str], None],
        sleep: Callable[[float], None],
        clock: Callable[[], float],
        source: random.Random,
    ) -> None:
        self.url = str(settings.api_url).rstrip("/")
        self._patience = settings.patience_seconds
        self._report = report
        self._sleep = sleep
        self._clock = clock
        self._source = source
        # No proxies of the environment and no redirects: the key must reach no other server.
        self._client = httpx.Client(
            headers={"Authorization": f"Bearer {settings.api_key.get_secret_value()}"},
            timeout=httpx.Timeout(settings.timeout_seconds, connect=_CONNECT_SECONDS),
            verify=_trust(settings),
            trust_env=False,
            follow_redirects=False,
        )

    def __enter__(self) -> "ApiClient":
        return self

    def __exit__(self, *caught: object) -> None:
        self._client.close()

    def import_identities(self, identities: Sequence[bytes], *, dry_run: bool) -> ImportAnswer:
        """Import `identities`, each a JSON object.

        Raises ApiRefusedError if the API refuses the whole request.
        """
        flag = b"true" if dry_run else b"false"
        body = b'{"dry_run":' + flag + b',"people":[' + b",".join(identities) + b"]}"
        answer = self._parse(ImportAnswer, self._send("POST", f"{IDENTITIES_PATH}/bulk", body, _JSON))
        if sorted(item.index for item in answer.items) != list(range(len(identities))):
            raise CannotRunError(
                f"the API at {self.url} does not answer for each of {len(identities)} identities"
            )
        return answer

    def add_photo(self, user_id: str, data: bytes, media_type: str) -> AddedPhoto:
        """Add a photo to the identity; raises ApiRefusedError."""
        path = f"{IDENTITIES_PATH}/{quote(user_id, safe='')}/photos"
        return self._parse(AddedPhoto, self._send("POST", path, data, {"Content-Type": media_type}))

    def export_page(self, cursor: str | None, *, vectors: bool) -> ExportedPage:
        """Return the next page of an export; raises ApiRefusedError."""
        query = {"vectors": "true" if vectors else "false"} | ({"cursor": cursor} if cursor else {})
        return self._parse(
            ExportedPage, self._send("GET", f"{IDENTITIES_PATH}/bulk?{httpx.QueryParams(query)}")
        )

    def export_identity(self, user_id: str) -> bytes:
        """Return everything stored about one identity, as JSON; raises ApiRefusedError."""
        return self._send("GET", f"{IDENTITIES_PATH}/{quote(user_id, safe='')}/export").content

    def move_device(self, device_id: str, site_id: str) -> None:
        """Move a device to a site; raises ApiRefusedError."""
        self._send("PATCH", _device_path(device_id), json.dumps({"site_id": site_id}).encode(), _JSON)

    def decommission_device(self, device_id: str) -> None:
        """Decommission a device; raises ApiRefusedError."""
        self._send("DELETE", _device_path(device_id))

    def begin_epoch(self) -> BegunEpoch:
        """Begin an epoch and return it; raises ApiRefusedError."""
        return self._parse(BegunEpoch, self._send("POST", "/api/v1/sync/new-epoch"))

    def spaces(self) -> list[RegisteredSpace]:
        """Return every space of the registry; raises ApiRefusedError."""
        return self._parse(_SpaceList, self._send("GET", SPACES_PATH)).items

    def space(self, space: str) -> RegisteredSpace | None:
        """Return one space, None if the registry does not have it."""
        try:
            return self._parse(RegisteredSpace, self._send("GET", _space_path(space)))
        except ApiRefusedError as error:
            if error.status == _NOT_FOUND:
                return None
            raise

    def put_space(self, record: SpaceRecord) -> None:
        """Make or change the record of a space; raises ApiRefusedError."""
        body = record.model_dump_json(exclude={"space"}, exclude_none=True).encode()
        self._send("PUT", _space_path(record.space), body, _JSON)

    def delete_space(self, space: str) -> None:
        """Remove a space with all its templates; raises ApiRefusedError."""
        try:
            self._send("DELETE", _space_path(space))
        except ApiRefusedError as error:
            # A long removal may outlast the wait for its answer: the next request finds it done.
            if error.status != _NOT_FOUND:
                raise

    def get(self, model: type[M], path: str) -> M:
        """Return the answer to a request for `path`; raises ApiRefusedError."""
        return self._parse(model, self._send("GET", path))

    def post(self, model: type[M], path: str, body: dict[str, Any]) -> M:
        """Return the answer to a request with a JSON body; raises ApiRefusedError."""
        return self._parse(model, self._send("POST", path, json.dumps(body).encode(), _JSON))

    def _send(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> httpx.Response:
        started = self._clock()
        attempt = 0
        while True:
            try:
                answer = self._client.request(method, self.url + path, content=body, headers=headers)
                if answer.status_code not in _BUSY:
                    break
                problem = f"answers {answer.status_code}"
            except httpx.TransportError as error:
                self._check_trust(error)
                problem = f"cannot be reached ({type(error).__name__})"
            attempt += 1
            if self._clock() - started >= self._patience:
                raise CannotRunError(f"the API at {self.url} {problem}, for more than {self._patience:g} s")
            if attempt == 1:
                self._report(f"the API at {self.url} {problem}; trying again for up to {self._patience:g} s")
            self._sleep(_BACKOFF.delay(attempt, self._source))
        if attempt:
            self._report(f"the API at {self.url} answers again")
        return self._check_status(answer)

    def _check_trust(self, error: BaseException) -> None:
        """Raise CannotRunError for a TLS error: a retry does not repair a certificate."""
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ssl.SSLError):
                raise CannotRunError(
                    f"no TLS with the API at {self.url} ({cause.reason}): check fleet.api_url, fleet.ca_file"
                ) from error
            cause = cause.__cause__ or cause.__context__

    def _check_status(self, answer: httpx.Response) -> httpx.Response:
        status = answer.status_code
        if answer.is_success:
            return answer
        problem = _problem(answer)
        if status in _ACCESS:
            raise CannotRunError(
                f"the API at {self.url} rejects this key ({status}): {problem.detail or 'no reason given'}"
            )
        if not problem.code:
            raise CannotRunError(
                f"the server at {self.url} is not this API (status {status}): check fleet.api_url"
            )
        raise ApiRefusedError(status, problem.code, problem.detail)

    def _parse(self, model: type[M], answer: httpx.Response) -> M:
        try:
            return model.model_validate_json(answer.content)
        except ValidationError as error:
            raise CannotRunError(f"the server at {self.url} is not this API: check fleet.api_url") from error


def _space_path(space: str) -> str:
    return f"{SPACES_PATH}/{quote(space, safe='')}"


def _device_path(device_id: str) -> str:
    return f"{DEVICES_PATH}/{quote(device_id, safe='')}"


def _problem(answer: httpx.Response) -> _ApiProblem:
    try:
        return _ApiProblem.model_validate_json(answer.content)
    except ValidationError:
        return _ApiProblem()


def _trust(settings: FleetSection) -> ssl.SSLContext | bool:
    if settings.ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=str(settings.ca_file))
    except OSError as error:
        raise CannotRunError(
            f"fleet.ca_file: {settings.ca_file} contains no certificate authority ({error.strerror or error})"
        ) from error
