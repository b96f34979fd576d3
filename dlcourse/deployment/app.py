"""A model behind HTTP: a page for people, an interface for programs, and what operators ask a service.

    app = create_app(Predictor("model.onnx"))
    serve(app)                                   # http://127.0.0.1:8000

What arrives together is computed together (`batching`), what is too much is refused in words (`limits`), and nothing of
the inside, no path, no text of an exception, goes out.
"""

# No `from __future__ import annotations` here: FastAPI reads the routes' annotations, which name what is imported inside.

import asyncio
import contextlib
import hmac
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, MutableMapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from dlcourse.deployment.limits import App, Guard, Limits, Receive, Refusal, Send
from dlcourse.deployment.predictor import Prediction, Predictor, Source, pixels
from dlcourse.deployment.screening import FORMATS, screen
from dlcourse.deployment.service import Service

if TYPE_CHECKING:
    from fastapi import FastAPI

    from dlcourse.deployment.monitoring import PredictionMonitor

PAGE = Path(__file__).with_name("page")


def create_app(
    predictor: Predictor,
    *,
    limits: Limits | None = None,
    monitor: "PredictionMonitor | None" = None,
    api_key: str | None = None,
    samples: Iterable[tuple[str, Source]] = (),
) -> "FastAPI":
    """The service as an ASGI application. `serve` runs it.

    monitor  records each prediction and watches for drift; GET /monitor and /metrics tell what it found
    api_key  when given, asked for in the header X-API-Key by every route that tells of the model or asks it
    samples  pictures that the page offers, as (name, picture)
    """
    from fastapi import Depends, FastAPI, Query
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse, PlainTextResponse, Response
    from starlette.exceptions import HTTPException
    from starlette.requests import Request

    from dlcourse.deployment.forms import (
        MOST_CLASSES,
        REQUEST_BODY,
        answer_schema,
        read_pictures,
        read_top_k,
        responses,
    )

    if api_key is not None and len(api_key) < 8:
        raise ValueError(
            "api_key has fewer than 8 characters; python -c 'import secrets; print(secrets.token_urlsafe())' makes one"
        )
    limits = limits or Limits()
    service = Service(predictor, limits, monitor)
    card = predictor.card
    pictures = [(name, _as_png(picture)) for name, picture in samples]

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await service.start()
        yield
        service.stop()

    # The pages of documentation that FastAPI would add load their scripts from another host.
    app = FastAPI(title=card.name, version="1", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.service, app.state.limits = service, limits

    def refuse(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
        return JSONResponse({"detail": detail}, status, headers=headers)

    @app.exception_handler(Refusal)
    async def refused(request: Request, error: Refusal) -> Response:
        return refuse(error.status, error.detail, error.headers)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        return refuse(error.status_code, str(error.detail), dict(error.headers or {}))

    @app.exception_handler(RequestValidationError)
    async def not_valid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return refuse(422, f"{first['loc'][-1]}: {first['msg']}")

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:  # the error itself goes to the log, not out
        return refuse(500, "the service failed at this request; its operator finds the reason in the log")

    def check_key(request: Request) -> None:
        given = request.headers.get("x-api-key", "")
        if api_key is not None and not hmac.compare_digest(given.encode("latin-1"), api_key.encode()):
            raise Refusal(401, "this service asks for its key in the header X-API-Key", {"WWW-Authenticate": "ApiKey"})

    async def allowed(request: Request) -> None:
        check_key(request)

    guarded = [Depends(allowed)]

    async def answer(request: Request) -> Response:
        try:
            check_key(request)
            top_k = read_top_k(request.query_params.get("top_k", "3"))
            files = await read_pictures(request, limits)
            predictions = await service.answers(files)
        except Refusal as error:
            return refuse(error.status, error.detail, error.headers)
        except HTTPException as error:  # the form's own complaints
            return refuse(error.status_code, str(error.detail))
        found = [_answer(name, prediction, top_k) for (name, _), prediction in zip(files, predictions, strict=True)]
        return JSONResponse({"model": card.name, "predictions": found})

    app.add_middleware(Shortcut, path="/predict", answer=answer)
    app.add_middleware(Guard, limits=limits)
    app.add_middleware(service.telemetry.middleware)

    @app.post("/predict", openapi_extra=REQUEST_BODY, responses=responses(answer_schema()))
    async def predict(request: Request, top_k: int = Query(3, ge=1, le=MOST_CLASSES)) -> Response:
        """Classify one picture or several, sent as a form of files."""
        return await answer(request)

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Whether the process lives; whether it can answer is another question: /ready."""
        return {"status": "ok"}

    @app.get("/ready", responses={503: {"description": "The model has not answered its self-test."}})
    async def ready() -> Response:
        """Whether the model is loaded and has answered a self-test."""
        return JSONResponse({"ready": service.ready}, 200 if service.ready else 503)

    @app.get("/model", dependencies=guarded)
    async def model() -> dict[str, Any]:
        """The model card, and what the service takes."""
        return {
            "name": card.name, "classes": list(card.classes), "preprocessing": asdict(card.preprocessing),
            "details": dict(card.details), "backend": predictor.backend.name, "limits": asdict(limits), "formats": list(FORMATS),
        }  # fmt: skip

    @app.get("/metrics", dependencies=guarded, response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Counts and latencies for Prometheus."""
        return PlainTextResponse(
            service.telemetry.text(service, monitor), media_type="text/plain; version=0.0.4; charset=utf-8"
        )

    @app.get("/monitor", dependencies=guarded, responses={404: {"description": "This service has no monitor."}})
    async def monitored() -> dict[str, Any]:
        """What the monitor has counted, and the last test for drift."""
        if monitor is None:
            raise Refusal(404, "this service has no monitor")
        found = await asyncio.to_thread(monitor.summary)  # waits for a test that is under way
        return {**found, "drift": None if monitor.drift is None else monitor.drift.to_dict()}

    @app.get("/samples", dependencies=guarded)
    async def list_samples() -> list[dict[str, Any]]:
        """The pictures that the page offers."""
        return [{"id": number, "name": name} for number, (name, _) in enumerate(pictures)]

    @app.get(
        "/samples/{number}",
        response_class=Response,
        responses={200: {"content": {"image/png": {}}}, 404: {"description": "No such sample."}},
    )
    async def sample(number: int) -> Response:
        """One of them."""
        if not 0 <= number < len(pictures):
            raise Refusal(404, "there is no such sample")
        return Response(pictures[number][1], media_type="image/png", headers={"Cache-Control": "max-age=3600"})

    @app.get("/favicon.ico", include_in_schema=False)
    async def icon() -> Response:
        return Response(status_code=204)

    for path, file, media in (
        ("/", "index.html", "text/html"), ("/page.css", "page.css", "text/css"), ("/page.js", "page.js", "text/javascript"),
    ):  # fmt: skip
        _add_page(app, path, (PAGE / file).read_text(encoding="utf-8"), media)
    return app


class Shortcut:
    """Brings a POST to `path` straight to its function: FastAPI's own way there costs a quarter of what a request may."""

    def __init__(self, app: App, path: str, answer: Callable[[Any], Awaitable[Any]]) -> None:
        self.app, self.path, self.answer = app, path, answer

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        from starlette.requests import Request

        if scope["type"] == "http" and scope["path"] == self.path and scope["method"] == "POST":
            response = await self.answer(Request(scope, receive))
            return await response(scope, receive, send)
        return await self.app(scope, receive, send)


def _add_page(app: "FastAPI", path: str, text: str, media: str) -> None:
    from fastapi.responses import Response

    policy = (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    )

    async def page() -> Response:
        return Response(
            text, media_type=media, headers={"Content-Security-Policy": policy, "Cache-Control": "no-cache"}
        )

    app.add_api_route(path, page, methods=["GET"], include_in_schema=False)


def _answer(name: str, prediction: Prediction, top_k: int) -> dict[str, Any]:
    top = [{"label": label, "probability": probability} for label, probability in prediction.top(top_k)]
    return {"file": name, **top[0], "top": top}


def _as_png(picture: Source) -> bytes:
    """A sample as the file that the page shows and sends back."""
    if isinstance(picture, bytes):
        if screen(picture) is None:
            raise ValueError(f"a sample is not a {', '.join(FORMATS)} that the service itself would take")
        return picture
    content = io.BytesIO()
    Image.fromarray(pixels(picture).permute(1, 2, 0).numpy()).save(content, "PNG")
    return content.getvalue()
