"""The dashboard page and the documentation page, with all files that they need."""

from pathlib import Path

from fastapi import APIRouter, FastAPI
from fastapi.responses import FileResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles
from swagger_ui_bundle import swagger_ui_path

UI = Path(__file__).resolve().parents[1] / "ui"

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# Swagger UI sets style attributes in its HTML.
_DOCS_POLICY = CONTENT_SECURITY_POLICY.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")

router = APIRouter(include_in_schema=False)


@router.get("/")
async def dashboard() -> FileResponse:
    return FileResponse(UI / "index.html", headers={"Cache-Control": "no-cache"})


@router.get("/docs")
async def docs() -> FileResponse:
    headers = {"Content-Security-Policy": _DOCS_POLICY, "Cache-Control": "no-cache"}
    return FileResponse(UI / "docs.html", headers=headers)


@router.get("/favicon.ico")
async def icon() -> RedirectResponse:
    return RedirectResponse("/ui/icon.svg")


def mount_pages(app: FastAPI) -> None:
    """Add the pages and their files to `app`."""
    app.include_router(router)
    app.mount("/ui", StaticFiles(directory=UI))
    app.mount("/swagger-ui", StaticFiles(directory=str(swagger_ui_path)))
