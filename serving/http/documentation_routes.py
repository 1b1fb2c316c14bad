"""The OpenAPI document, and the page that shows it; both work offline."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount
from starlette.staticfiles import StaticFiles

from headwater.serving.api.operations import DOCS, OPENAPI
from headwater.serving.http.openapi import document
from headwater.serving.http.routes import route
from headwater.spec.pipeline import Pipeline

__all__ = ["documentation_routes"]

_FILES = "/docs/files"


def documentation_routes(pipelines: Sequence[Pipeline]) -> list[BaseRoute]:
    """Make the routes of the document of these pipelines.

    The page is Swagger UI as fastapi-offline packs it, since machines may be offline.
    """
    cached_document = cache(lambda: document(pipelines))

    async def openapi(_request: Request, _query: None) -> dict[str, Any]:
        return cached_document()

    async def page(_request: Request, _query: None) -> Response:
        from fastapi.openapi.docs import get_swagger_ui_html  # noqa: PLC0415 - only this page needs it

        return get_swagger_ui_html(
            openapi_url=OPENAPI.path,
            title="headwater",
            swagger_js_url=f"{_FILES}/swagger-ui-bundle.js",
            swagger_css_url=f"{_FILES}/swagger-ui.css",
            swagger_favicon_url=f"{_FILES}/favicon.png",
        )

    files = StaticFiles(packages=[("fastapi_offline", "static")])
    return [route(OPENAPI, openapi), route(DOCS, page), Mount(_FILES, files)]
