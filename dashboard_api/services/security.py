"""Authenticate requests by API key and check the role of the key.

A key is read from the header only, since URLs end up in logs.
"""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from broker_bridge.registry.api_keys import ApiKey, Role
from dashboard_api.http.problems import Problem

from .key_watch import CHALLENGE, KEY_INVALID_DETAIL
from .services import ServicesDep

_BEARER = HTTPBearer(auto_error=False, description="An API key")
_Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]


async def authenticate(services: ServicesDep, credentials: _Credentials, request: Request) -> ApiKey:
    """Return the API key of a request; raise Problem 401.

    Every request reads its key from MongoDB, so that a revoked key stops in all processes at once.
    """
    if credentials is None:
        detail = "send an API key in the header: Authorization: Bearer <api key>"
        raise Problem(401, "key-missing", detail, CHALLENGE)
    record = await services.registry.api_keys.authenticate(credentials.credentials, services.now())
    if record is None:
        raise Problem(401, "key-invalid", KEY_INVALID_DETAIL, CHALLENGE)
    services.key_watch.admit(request, record)
    return record.key


def allow(*roles: Role) -> Callable[..., Awaitable[ApiKey]]:
    """Return a dependency that admits `roles` and `admin`, else raises Problem 403."""

    async def check(key: Annotated[ApiKey, Depends(authenticate)]) -> ApiKey:
        if key.role != "admin" and key.role not in roles:
            needed = " or ".join(("admin", *roles))
            raise Problem(403, "role-insufficient", f"this needs the role {needed}; the key has {key.role}")
        return key

    check.roles = ("admin", *roles)  # type: ignore[attr-defined]
    return check


MAY_READ = Depends(allow("operator", "viewer"))
MAY_ENROLL = Depends(allow("operator", "source"))
MAY_WORK = Depends(allow("source"))
MAY_FOLLOW_WORK = Depends(allow("operator", "viewer", "source"))
MAY_CHANGE = Depends(allow("operator"))
MAY_ADMINISTER = Depends(allow())
