"""The REST API as this command uses it: waits while it is away, and tells refusals from what ends the run."""

import random
import ssl
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

from .errors import ApiRefusedError, CannotRunError
from .settings import FleetSection

M = TypeVar("M", bound=BaseModel)
Result = Literal["created", "changed", "unchanged", "refused"]

PEOPLE = "/api/v1/identities"
_ACCESS = frozenset({401, 403})
_BUSY = frozenset({429, 502, 503, 504})
_CONNECT_SECONDS = 5.0
_PAUSES = (0.5, 15.0)
_JSON = {"Content-Type": "application/json"}


class _BulkAnswer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class LookAlikeItem(_BulkAnswer):
    """Somebody else who is near, by cosine similarity."""

    nearest_user_id: str
    similarity: float
    space: str


class ImportItem(_BulkAnswer):
    """What became of number `index` of those who were sent."""

    index: int
    result: Result
    version: int | None = None
    code: str = ""
    detail: str = ""
    look_alikes: list[LookAlikeItem] = []


class ImportAnswer(_BulkAnswer):
    items: list[ImportItem]


class ExportedPage(_BulkAnswer):
    items: list[dict[str, Any]]
    next_cursor: str | None


class _Photo(_BulkAnswer):
    version: int


class _ApiProblem(_BulkAnswer):
    code: str = ""
    detail: str = ""


class ApiClient:
    """Requests to one API, one at a time. Use as a context manager.

    Any method raises CannotRunError, also when the API stays away for longer than `patience_seconds`;
    `say` hears when it goes away and when it is back.
    """

    def __init__(
        self,
        settings: FleetSection,
        *,
        say: Callable[[str], None],
        sleep: Callable[[float], None],
        clock: Callable[[], float],
        source: random.Random,
    ) -> None:
        self.url = str(settings.api_url).rstrip("/")
        self._patience = settings.patience_seconds
        self._say = say
        self._sleep = sleep
        self._clock = clock
        self._source = source
        # Neither proxies of the environment nor redirects: the key goes to this API and nowhere else.
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

    def bring(self, people: Sequence[bytes], *, dry_run: bool) -> ImportAnswer:
        """Import `people`, each a JSON object; raises RefusedError where all are refused together."""
        flag = b"true" if dry_run else b"false"
        body = b'{"dry_run":' + flag + b',"people":[' + b",".join(people) + b"]}"
        answer = self._read(ImportAnswer, self._ask("POST", f"{PEOPLE}/bulk", body, _JSON))
        if sorted(item.index for item in answer.items) != list(range(len(people))):
            raise CannotRunError(f"the API at {self.url} does not answer for each of {len(people)} people")
        return answer

    def add_photo(self, user_id: str, data: bytes, media_type: str) -> int:
        """The version of the person with the face of a photo; raises RefusedError."""
        path = f"{PEOPLE}/{quote(user_id, safe='')}/photos"
        return self._read(_Photo, self._ask("POST", path, data, {"Content-Type": media_type})).version

    def page(self, cursor: str | None, *, vectors: bool) -> ExportedPage:
        """The next people of an export; raises RefusedError."""
        query = {"vectors": "true" if vectors else "false"} | ({"cursor": cursor} if cursor else {})
        return self._read(ExportedPage, self._ask("GET", f"{PEOPLE}/bulk?{httpx.QueryParams(query)}"))

    def person(self, user_id: str) -> bytes:
        """All that is held about one person, as JSON; raises RefusedError."""
        return self._ask("GET", f"{PEOPLE}/{quote(user_id, safe='')}/export").content

    def _ask(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> httpx.Response:
        begun = self._clock()
        attempt = 0
        while True:
            away = "did not answer"
            try:
                answer = self._client.request(method, self.url + path, content=body, headers=headers)
                if answer.status_code not in _BUSY:
                    break
                away = f"answers {answer.status_code}"
            except httpx.TransportError as error:
                self._check_trust(error)
                away = f"cannot be reached ({type(error).__name__})"
            attempt += 1
            if self._clock() - begun >= self._patience:
                raise CannotRunError(f"the API at {self.url} {away}, for more than {self._patience:g} s")
            if attempt == 1:
                self._say(f"the API at {self.url} {away}; trying again for up to {self._patience:g} s")
            base, cap = _PAUSES
            self._sleep(self._source.uniform(base, min(cap, base * 2.0 ** min(attempt, 16))))
        if attempt:
            self._say("it answers again")
        return self._judge(answer)

    def _check_trust(self, error: BaseException) -> None:
        """Waiting does not mend a certificate."""
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ssl.SSLError):
                raise CannotRunError(
                    f"no TLS with the API at {self.url} ({cause.reason}): check fleet.api_url, fleet.ca_file"
                ) from error
            cause = cause.__cause__ or cause.__context__

    def _judge(self, answer: httpx.Response) -> httpx.Response:
        status = answer.status_code
        if answer.is_success:
            return answer
        problem = _problem(answer)
        if status in _ACCESS:
            raise CannotRunError(
                f"the API at {self.url} does not let this key in ({status}): {problem.detail or 'no reason'}"
            )
        if not problem.code:
            raise CannotRunError(
                f"what answers at {self.url} is not this API (status {status}): check fleet.api_url"
            )
        raise ApiRefusedError(status, problem.code, problem.detail)

    def _read(self, model: type[M], answer: httpx.Response) -> M:
        try:
            return model.model_validate_json(answer.content)
        except ValidationError as error:
            raise CannotRunError(
                f"what answers at {self.url} is not this API: check fleet.api_url"
            ) from error


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
            f"fleet.ca_file: {settings.ca_file} holds no authority ({error.strerror or error})"
        ) from error
