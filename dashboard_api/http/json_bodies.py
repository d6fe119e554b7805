"""Checks of JSON request bodies, as dependencies of routes."""

import json
from typing import Any

from fastapi import Depends, Request

from .middleware import media_type
from .problems import Problem

JSON_MEDIA_TYPE = "application/json"


async def require_json_type(request: Request) -> None:
    """Raise Problem 415 unless the body is declared as JSON."""
    if media_type(request.headers) != JSON_MEDIA_TYPE:
        raise Problem(415, "media-type-unsupported", f"send the body as {JSON_MEDIA_TYPE}")


async def require_json(request: Request) -> None:
    """Raise Problem 415 unless the body is declared as JSON, 422 for a duplicate name.

    Of two values under one name the last would count here, while a proxy may have checked the first
    (RFC 8259, section 4).
    """
    await require_json_type(request)
    # FastAPI parses the body without a check for duplicate names. It has found this body to be JSON already.
    json.loads(await request.body() or b"null", object_pairs_hook=_reject_duplicate_names)


def _reject_duplicate_names(pairs: list[tuple[str, Any]]) -> None:
    names = [name for name, _ in pairs]
    if len(set(names)) != len(names):
        raise Problem(422, "request-invalid", "an object of the body has a name twice")


JSON_TYPE = Depends(require_json_type)
"""For a route that reads its body by itself."""
JSON_BODY = Depends(require_json)
