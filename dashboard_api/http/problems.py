"""Problem documents (RFC 9457): every error answer, with a stable `code`."""

import asyncio
import logging
import re
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
"""The code for image indicators in a request, and the type of their validation error."""
_MAX_NAME_LENGTH = 64
_MAX_FIELDS = 20

# Every other contract code is a request that was understood and cannot be carried out: 422.
_STATUS_BY_CODE = {
    "person-unknown": 404,
    "device-unknown": 404,
    "detected-person-unknown": 404,
    "erasure-unknown": 404,
    "person-merged": 409,
    "key-unknown": 404,
    "last-admin-key": 409,
    "identity-exists": 409,
    "identity-deleted": 409,
    "merge-impossible": 409,
    "face-differs": 409,
    "look-alike": 409,
    "site-mismatch": 409,
    "space-mismatch": 409,
    "space-in-use": 409,
    "spaces-too-many": 409,
    "limits-missing": 409,
    "payload-too-large": 413,
}
_CODE_BY_STATUS = {
    400: "request-unreadable",
    401: "key-invalid",
    404: "not-found",
    405: "method-not-allowed",
    413: "payload-too-large",
    415: "media-type-unsupported",
}


class Problem(Exception):  # noqa: N818 (RFC 9457 calls it a problem)
    """An error answer: HTTP status, stable code and one sentence for the reader."""

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
        """Return the problem document as an HTTP response."""
        document = {
            "type": f"urn:wfm:problem:{self.code}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            **self.more,
        }
        return JSONResponse(document, self.status, self.headers, MEDIA_TYPE)


def not_found(resource: str) -> Problem:
    return Problem(404, "not-found", f"there is no {resource}")


def too_large(limit: int) -> Problem:
    return Problem(413, "payload-too-large", f"the body may have at most {limit} bytes")


def from_contract_error(error: ContractError) -> Problem:
    return Problem(_STATUS_BY_CODE.get(error.code, 422), error.code, error.detail)


def from_validation_errors(errors: Sequence[Mapping[str, Any]]) -> Problem:
    """Return the 422 for invalid fields.

    It names the fields and the reasons, never the values: those may be biometric.
    """
    fields = [
        {"field": ".".join(str(part)[:_MAX_NAME_LENGTH] for part in error["loc"]), "message": error["msg"]}
        for error in errors[:_MAX_FIELDS]
    ]
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    detail = f"{fields[0]['field']}: {fields[0]['message']}{more}"
    has_image_indicator = any(error.get("type") == PICTURE_REFUSED for error in errors)
    code = PICTURE_REFUSED if has_image_indicator else "request-invalid"
    return Problem(422, code, detail, fields=fields)


def from_http_exception(error: HTTPException) -> Problem:
    code = _CODE_BY_STATUS.get(error.status_code, f"http-{error.status_code}")
    return Problem(error.status_code, code, str(error.detail), error.headers)


def from_registry_error(error: Exception) -> Problem:
    _log.error("api cannot reach MongoDB; requests get 503 error=%s", type(error).__name__)
    detail = "the registry is unavailable; the change may or may not have been made, send it again"
    return Problem(503, "registry-unavailable", detail, {"Retry-After": "5"})


def install_problem_handlers(app: FastAPI) -> None:
    """Make every error of `app` a problem document."""

    async def respond(request: Request, error: Exception) -> JSONResponse:
        problem = _to_problem(error)
        if problem.status == HTTPStatus.METHOD_NOT_ALLOWED:
            methods = _methods_of(app, request.scope["path"])
            by_router = problem.headers.pop("Allow", "")
            problem.headers["Allow"] = ", ".join(sorted(methods)) or by_router
        return problem.response()

    for error_type in (
        Problem,
        ContractError,
        RequestValidationError,
        HTTPException,
        RegistryError,
        asyncio.TimeoutError,
    ):
        app.add_exception_handler(error_type, respond)
    app.add_middleware(UnexpectedErrors)


def _methods_of(app: FastAPI, path: str) -> set[str]:
    """Return the methods of all operations of a path.

    The router names those of the first route alone.
    """
    described, path = app.openapi()["paths"], path.rstrip("/")
    if path in described:
        return {method.upper() for method in described[path]}
    templates = (name for name in described if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", name), path))
    return {method.upper() for name in templates for method in described[name]}


def _to_problem(error: Exception) -> Problem:
    match error:
        case Problem():
            return error
        case ContractError():
            return from_contract_error(error)
        case RequestValidationError():
            return from_validation_errors(error.errors())
        case HTTPException():
            return from_http_exception(error)
        case _:
            return from_registry_error(error)


class UnexpectedErrors:
    """Middleware that logs unexpected errors and answers them without their details."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response_started = False

        async def note_start(message: Message) -> None:
            nonlocal response_started
            response_started = response_started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, note_start)
        except Problem as problem:
            if response_started or scope["type"] != "http":
                raise
            await problem.response()(scope, receive, send)
        except Exception:
            if response_started or scope["type"] != "http":
                raise
            _log.exception("api request failed method=%s path=%r", scope["method"], scope["path"])
            internal = Problem(500, "internal-error", "an error in the server; its log has the details")
            await internal.response()(scope, receive, send)
