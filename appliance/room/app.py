"""The web application: routes, static files, guards and error answers put together; no external asset."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from appliance.errors import ApplianceError, BadInput
from appliance.room import routes_api, routes_certificates, routes_pages
from appliance.room.web import Guard, NotLoggedIn, Site, error_response

_NOT_PAGES = ("/api/", "/events", "/static/")


def build_app(site: Site) -> FastAPI:
    """The application over one room."""
    app = FastAPI(title="Invigil room", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.site = site
    app.include_router(routes_api.router)
    app.include_router(routes_pages.router)
    app.include_router(routes_certificates.router)
    app.mount("/static", StaticFiles(directory=Path(__file__).parent / "static"), name="static")
    app.add_exception_handler(ApplianceError, _named)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_middleware(Guard)
    return app


def _is_page(request: Request) -> bool:
    return request.method == "GET" and not request.url.path.startswith(_NOT_PAGES)


async def _named(request: Request, error: Exception) -> Response:
    error = cast(ApplianceError, error)  # Starlette calls each of these with its own kind only
    if not _is_page(request):
        return error_response(error)
    if isinstance(error, NotLoggedIn):
        return RedirectResponse("/login", 303)
    status = error_response(error).status_code
    return routes_pages.page(request, "error.html", None, status, error=str(error), hint=error.hint)


async def _invalid(_request: Request, error: Exception) -> JSONResponse:
    first = cast(RequestValidationError, error).errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:]) or "body"
    return error_response(BadInput(f"{where}: {str(first['msg']).lower()}", "docs/api.md lists every field"))


async def _http(request: Request, error: Exception) -> Response:
    error = cast(HTTPException, error)
    hint = "start at /"
    if _is_page(request):
        words = "there is no such page" if error.status_code == 404 else str(error.detail).lower()
        return routes_pages.page(request, "error.html", None, error.status_code, error=words, hint=hint)
    return JSONResponse({"error": str(error.detail).lower(), "hint": hint}, error.status_code, error.headers)
