"""Refuse query parameters that a route does not have.

A misspelt filter that is ignored answers with everything, which looks like a result.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import get_origin

from fastapi import Request
from fastapi.dependencies.utils import get_flat_params
from fastapi.params import Query
from fastapi.routing import APIRoute

from .problems import Problem

QUERY_UNKNOWN = "query-parameter-unknown"
QUERY_REPEATED = "query-parameter-repeated"
_MAX_NAME_LENGTH = 64
_MAX_FIELDS = 20


async def refuse_unknown_parameters(request: Request) -> None:
    """Raise Problem 422 for a query parameter that the route does not have.

    A parameter with a single value may stand once.
    """
    names = Counter(name for name, _ in request.query_params.multi_items())
    if not names:
        return
    known = _parameters_of(request.scope["route"])
    unknown = {name: _sentence(name, known) for name in names if name not in known}
    if unknown:
        raise _problem(QUERY_UNKNOWN, unknown)
    repeated = {
        name: f"given {count} times, expected once"
        for name, count in names.items()
        if count > 1 and not known[name]
    }
    if repeated:
        raise _problem(QUERY_REPEATED, repeated)


def _parameters_of(route: APIRoute) -> dict[str, bool]:
    """Return the query parameters of a route, and whether each is a list."""
    return {
        field.alias: get_origin(field.field_info.annotation) in (list, tuple, set)
        for field in get_flat_params(route.dependant)
        if isinstance(field.field_info, Query)
    }


def _sentence(name: str, known: Collection[str]) -> str:
    if not known:
        return "there is no such parameter, this path has none"
    close = get_close_matches(name[:_MAX_NAME_LENGTH], known, 1)
    hint = f"did you mean {close[0]}?" if close else f"expected {', '.join(sorted(known))}"
    return f"there is no such parameter; {hint}"


def _problem(code: str, messages: Mapping[str, str]) -> Problem:
    fields = [
        {"field": f"query.{name[:_MAX_NAME_LENGTH]}", "message": message}
        for name, message in list(messages.items())[:_MAX_FIELDS]
    ]
    return Problem(422, code, f"{fields[0]['field']}: {fields[0]['message']}", fields=fields)
