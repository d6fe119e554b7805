"""RFC 9457: every error is an `application/problem+json` document with a stable `code`."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from broker_bridge.contract.errors import ContractError
from broker_bridge.registry import RegistryError

_log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
PICTURE_REFUSED = "picture-refused"
"""The code, and the type of a validation error, for what smells of a picture."""
_LONGEST_NAME = 64
_MOST_FIELDS = 20

# Whatever else breaks the contract is a request that was understood and cannot be carried out: 422.
_STATUS_BY_CODE = {
    "person-unknown": 404,
    "device-unknown": 404,
    "detected-person-unknown": 404,
    "erasure-unknown": 404,
    "person-merged": 409,
    "merge-impossible": 409,
    "face-differs": 409,
    "look-alike": 409,
    "site-mismatch": 409,
    "space-mismatch": 409,
    "payload-too-large": 413,
}
_CODE_BY_STATUS = {
    400: "request-unreadable",
    404: "not-found",
    405: "method-not-allowed",
    413: "payload-too-large",
    415: "media-type-unsupported",
}


class Problem(Exception):  # noqa: N818 (RFC 9457 calls it a problem)
    """An answer that is not a success: HTTP status, stable code and one sentence for a person."""

    def __init__(
        self, status: int, code: str, detail: str, headers: Mapping[str, str] | None = None, **more: Any
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = dict(headers or {})
        self.more = more

    def response(self) -> JSONResponse:
        """The problem document as an HTTP answer."""
        document = {
            "type": f"urn:wfm:problem:{self.code}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            **self.more,
        }
        return JSONResponse(document, self.status, self.headers, MEDIA_TYPE)


def not_found(what: str) -> Problem:
    return Problem(404, "not-found", f"there is no {what}")


def too_large(limit: int) -> Problem:
    return Problem(413, "payload-too-large", f"the body may have at most {limit} bytes")


def of_contract(error: ContractError) -> Problem:
    return Problem(_STATUS_BY_CODE.get(error.code, 422), error.code, error.detail)


def of_validation(errors: Sequence[Mapping[str, Any]]) -> Problem:
    """Which fields are at fault and why, never their values: those may be biometric."""
    fields = [
        {"field": ".".join(str(part)[:_LONGEST_NAME] for part in error["loc"]), "message": error["msg"]}
        for error in errors[:_MOST_FIELDS]
    ]
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    detail = f"{fields[0]['field']}: {fields[0]['message']}{more}"
    smells = any(error.get("type") == PICTURE_REFUSED for error in errors)
    return Problem(422, PICTURE_REFUSED if smells else "request-invalid", detail, fields=fields)


def of_http(error: HTTPException) -> Problem:
    code = _CODE_BY_STATUS.get(error.status_code, f"http-{error.status_code}")
    return Problem(error.status_code, code, str(error.detail), error.headers)


def of_registry(error: Exception) -> Problem:
    _log.error("MongoDB does not answer as it should: %s", type(error).__name__)
    detail = "the registry cannot be reached at the moment; a change may or may not have been made, try again"
    return Problem(503, "registry-unavailable", detail, {"Retry-After": "5"})


def install(app: FastAPI) -> None:
    """Make every error of `app` a problem document."""

    async def answer(_: Request, error: Exception) -> JSONResponse:
        return _problem(error).response()

    for kind in (
        Problem,
        ContractError,
        RequestValidationError,
        HTTPException,
        RegistryError,
        asyncio.TimeoutError,
    ):
        app.add_exception_handler(kind, answer)
    app.add_middleware(UnexpectedErrors)


def _problem(error: Exception) -> Problem:
    match error:
        case Problem():
            return error
        case ContractError():
            return of_contract(error)
        case RequestValidationError():
            return of_validation(error.errors())
        case HTTPException():
            return of_http(error)
        case _:
            return of_registry(error)


class UnexpectedErrors:
    """The outermost ring: a mistake of ours is logged here, and answered without what it was about."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def note(message: Message) -> None:
            nonlocal begun
            begun = begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, note)
        except Problem as problem:
            if begun or scope["type"] != "http":
                raise
            await problem.response()(scope, receive, send)
        except Exception:
            if begun or scope["type"] != "http":
                raise
            _log.exception("%s %s failed", scope["method"], scope["path"])
            mistake = Problem(500, "internal-error", "this is a mistake in the server, which has logged it")
            await mistake.response()(scope, receive, send)
