"""Every route refuses query parameters that it does not have, or that stand twice."""

from collections.abc import Iterator

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from dashboard_api import app as application
from dashboard_api.operations import health_routes
from tests.integration.dashboard_api.conftest import client_of, is_problem

ROUTES = [
    (method, route.path)
    for router in (*application._ROUTERS, health_routes.router)
    for route in router.routes
    if isinstance(route, APIRoute)
    for method in sorted(route.methods)
]


def filled(path: str) -> Iterator[str]:
    """Yield the segments of a path with a valid value for each parameter."""
    for segment in path.split("/"):
        yield "cam-001" if segment.startswith("{") else segment


async def test_every_route_refuses_an_unknown_parameter(api: httpx.AsyncClient) -> None:
    """The paths of the seeds too, and those outside the OpenAPI document."""
    assert len(ROUTES) > 60
    for method, path in ROUTES:
        answer = await api.request(method, "/".join(filled(path)), params={"colour": "blue"})
        problem = is_problem(answer, 422, "query-parameter-unknown")
        assert problem["fields"][0]["field"] == "query.colour", path
        assert "blue" not in answer.text


@pytest.mark.parametrize(
    ("query", "code", "detail"),
    [
        ("site_id=nowhere&user=NOPE", "query-parameter-unknown", "query.site_id: "),
        ("user=NOPE", "query-parameter-unknown", "did you mean user_id?"),
        ("Limit=1", "query-parameter-unknown", "did you mean limit?"),
        ("limit%20=1", "query-parameter-unknown", "did you mean limit?"),
        ("limit[]=1", "query-parameter-unknown", "did you mean limit?"),
        ("received_at=2026-01-15T10:00:00Z", "query-parameter-unknown", "did you mean received_after?"),
        ("=1", "query-parameter-unknown", "expected cursor, device_id"),
        ("limit", "request-invalid", "limit"),
        ("limit=1;user_id=EMP-1", "request-invalid", "limit"),
        ("limit=1&limit=2", "query-parameter-repeated", "query.limit: given 2 times"),
        ("limit=1&limit=1&colour=1", "query-parameter-unknown", "query.colour"),
        ("user_id=EMP-1&user_id=EMP-2", "query-parameter-repeated", "query.user_id"),
        ("a" * 5000 + "=1", "query-parameter-unknown", "expected cursor, device_id"),
        ("%00=1", "query-parameter-unknown", "expected cursor, device_id"),
        ("%ff=1", "query-parameter-unknown", "expected cursor, device_id"),
    ],
)
async def test_a_filter_that_would_be_ignored_is_refused(
    api: httpx.AsyncClient, query: str, code: str, detail: str
) -> None:
    """A misspelt filter never answers with everything."""
    answer = await api.get(f"/api/v1/events?{query}")
    assert detail in is_problem(answer, 422, code)["detail"]
    assert len(answer.text) < 1000


async def test_many_unknown_parameters_give_a_short_answer(api: httpx.AsyncClient) -> None:
    """The answer names the first twenty."""
    problem = is_problem(
        await api.get("/api/v1/events", params={f"p{n}": 1 for n in range(500)}),
        422,
        "query-parameter-unknown",
    )
    assert len(problem["fields"]) == 20


async def test_pages_ignore_what_a_browser_adds(app: FastAPI) -> None:
    """A link with a campaign parameter still opens the page."""
    async with client_of(app, None) as client:
        assert (await client.get("/?utm_source=mail")).status_code == 200
        assert (await client.get("/ui/app.js?v=2")).status_code == 200
