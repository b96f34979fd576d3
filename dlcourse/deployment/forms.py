"""The form in which pictures arrive at POST /predict, read within the limits, and described for OpenAPI."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

from dlcourse.deployment.limits import Limits, Refusal

if TYPE_CHECKING:
    from starlette.requests import Request

FIELD = "files"
MOST_CLASSES = 1000
"""That one may ask for; a model with fewer gives all."""
REQUEST_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [FIELD],
                    "properties": {
                        FIELD: {"type": "array", "minItems": 1, "items": {"type": "string", "format": "binary"}}
                    },
                }
            }
        },
    }
}
LEFT = 499
"""What the log of many servers shows for a sender who left before the answer; nobody receives it."""
REASONS = {
    400: "An empty form, or a damaged picture.",
    401: "The API key is missing or wrong.",
    408: "The request did not arrive in time.",
    413: "The request or a picture is too large.",
    415: "Not a form of files, or a file that is no picture.",
    422: "A parameter is out of its range.",
    503: "Busy or not ready; Retry-After says when to ask again.",
}


async def read_pictures(request: Request, limits: Limits) -> list[tuple[str, bytes]]:
    """The files of the form as (name for the answer, content). Raises Refusal in words for everything else."""
    from starlette.datastructures import UploadFile
    from starlette.requests import ClientDisconnect

    kind = request.headers.get("content-type", "")
    if not kind.lower().startswith("multipart/form-data"):
        raise Refusal(415, f"send the pictures as multipart/form-data, in the field {FIELD!r}")
    if "charset" in kind.lower():  # it would name the codec, of all that Python has, with which the names are decoded
        raise Refusal(415, "a form of files has no charset: names are read as UTF-8")
    try:
        async with asyncio.timeout(limits.receive_seconds):
            form = await request.form(max_files=limits.files, max_fields=limits.files, max_part_size=2**16)
    except ClientDisconnect:
        raise Refusal(LEFT, "the sender left") from None
    except TimeoutError:
        raise Refusal(
            408, f"the request did not arrive within {limits.receive_seconds:g} s", {"Connection": "close"}
        ) from None
    try:
        given = form.getlist(FIELD)
        files = [file for file in given if isinstance(file, UploadFile)]
        if not files:
            raise Refusal(400, f"the form holds no file in the field {FIELD!r}")
        if len(files) < len(given):
            raise Refusal(400, f"the form holds text in the field {FIELD!r}, where a file belongs")
        return [(shown_name(file.filename, number), await file.read()) for number, file in enumerate(files, 1)]
    finally:
        await form.close()


def read_top_k(text: str) -> int:
    """How many classes are asked for. Raises Refusal for anything but a whole number within 1 … MOST_CLASSES."""
    if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= MOST_CLASSES):
        raise Refusal(422, f"top_k must be a whole number from 1 to {MOST_CLASSES}")
    return int(text)


def shown_name(name: str | None, number: int) -> str:
    """A file's name as it may be repeated to its sender: no folders, no control characters, at most 80 characters."""
    last = re.split(r"[/\\]", name or "")[-1]
    return "".join(character for character in last if character.isprintable())[-80:] or f"picture {number}"


def answer_schema() -> dict[str, Any]:
    """What POST /predict answers, as JSON schema."""
    probability = {"type": "number", "minimum": 0, "maximum": 1}
    top = {"label": {"type": "string"}, "probability": probability}
    one = {
        "type": "object",
        "required": ["file", "label", "probability", "top"],
        "properties": {
            "file": {"type": "string"}, **top,
            "top": {"type": "array", "items": {"type": "object", "required": [*top], "properties": top}},
        },
    }  # fmt: skip
    return {
        "type": "object",
        "required": ["model", "predictions"],
        "properties": {"model": {"type": "string"}, "predictions": {"type": "array", "items": one}},
    }


def responses(answer: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    """The answers of POST /predict for OpenAPI."""
    detail = {"type": "object", "required": ["detail"], "properties": {"detail": {"type": "string"}}}
    described: dict[int | str, dict[str, Any]] = {
        status: {"description": reason, "content": {"application/json": {"schema": detail}}}
        for status, reason in REASONS.items()
    }
    return {200: {"description": "The answers.", "content": {"application/json": {"schema": answer}}}, **described}
