"""The page and its endpoint, as a Starlette application."""

import base64
import hashlib
import io
import os
import re
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from anyio import CapacityLimiter, to_thread
from PIL import Image
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from jaxfood.data.decode import DecodingError

if TYPE_CHECKING:
    from jaxfood.serving.answerer import Answer, Answerer

MAX_UPLOAD = 50_000_000  # bytes; the largest phone cameras' JPEGs have half of it
_FORM = 100_000  # bytes around a picture in a form
_DRAINED = 1_000_000_000  # bytes of a refused upload that are taken and dropped: a browser first sends, then listens

_PAGE = Path(__file__).with_name("page.html")


def make_app(answerer: "Answerer", title: str, allowed_hosts: Sequence[str] = ("*",)) -> Starlette:
    """The application.

    Args:
        answerer: what answers.
        title: which runs these are, for the page.
        allowed_hosts: the names under which it answers: on this machine alone its own, so that no page of another
            site reaches it by a name of its own (DNS rebinding); "*": any.
    """
    page, policy = _page(title, answerer.classes)
    limiter = CapacityLimiter(min(4, os.cpu_count() or 1))  # pictures at a time: the others wait

    async def show(request: Request) -> Response:
        return HTMLResponse(page, headers={"Content-Security-Policy": policy, **_HEADERS})

    async def predict(request: Request) -> Response:
        _check_origin(request)
        encoded = await _uploaded(request)
        try:
            answer = await to_thread.run_sync(answerer.answer, encoded, limiter=limiter)
        except DecodingError as error:
            raise Refusal(
                400, "not_a_picture", f"this cannot be read as a picture: it is {error}", str(error)
            ) from None
        saliency = request.query_params.get("saliency", "true") != "false"
        body = await to_thread.run_sync(
            partial(_described, answer, answerer.classes, saliency=saliency), limiter=limiter
        )
        return JSONResponse(body, headers=_HEADERS)

    return Starlette(
        routes=[Route("/", show), Route("/predict", predict, methods=["POST"])],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(allowed_hosts), www_redirect=False)],
        exception_handlers={Refusal: _refuse, HTTPException: _refuse},
    )


_HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store"}


class Refusal(HTTPException):
    """A request that gets a sentence.

    Attributes:
        code: names the reason, for programs and for the page's translation.
        detail: the sentence.
        what: the part of it that no translation has: what the file is.
    """

    def __init__(self, status: int, code: str, sentence: str, what: str = "") -> None:
        super().__init__(status, sentence)
        self.code, self.what = code, what


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code, what = (error.code, error.what) if isinstance(error, Refusal) else ("http", "")
    body = {"error": {"code": code, "message": error.detail, "what": what}}
    return JSONResponse(body, status_code=error.status_code, headers={**_HEADERS, **(error.headers or {})})


def _check_origin(request: Request) -> None:
    """Refuse what a page of another site sends through the browser of somebody who may reach this one."""
    origin = request.headers.get("origin")
    if origin is not None and origin.partition("://")[2] != request.headers.get("host"):
        raise Refusal(403, "origin", f"{origin} is another site: open this one's own page")


async def _uploaded(request: Request) -> bytes:
    """The picture of a request: its body, or the file of a form.

    Raises:
        Refusal: it is too large, or there is none.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_form = kind == "multipart/form-data"
    limit = MAX_UPLOAD + _FORM * is_form
    try:
        chunks = _limited(request, limit)
        encoded = await _of_form(request, chunks) if is_form else b"".join([chunk async for chunk in chunks])
    except ClientDisconnect:
        raise Refusal(400, "broken_off", "the upload broke off: send it again") from None
    if not encoded:
        raise Refusal(400, "empty", "there is nothing in this: send a picture as the body, or as the file of a form")
    return encoded


async def _limited(request: Request, limit: int) -> AsyncIterator[bytes]:
    """The chunks of a body of at most so many bytes, read as they come; of a larger one nothing is kept."""
    told = request.headers.get("content-length", "")
    received, too_large = 0, told.isdecimal() and int(told) > limit
    async for chunk in request.stream():
        received += len(chunk)
        too_large = too_large or received > limit
        if not too_large:
            yield chunk
        elif received > _DRAINED:
            break
    if too_large:
        size = max(received, int(told) if told.isdecimal() else 0)
        megabytes = f"{size / 1e6:.0f} MB"
        raise Refusal(
            413, "too_large", f"too large: {megabytes}, where {MAX_UPLOAD // 10**6} MB are the most", megabytes
        )


async def _of_form(request: Request, chunks: AsyncIterator[bytes]) -> bytes:
    """The first file of a form, whatever its field is called; b"" where there is none."""
    try:
        form = await MultiPartParser(request.headers, chunks, max_files=1, max_fields=10).parse()  # type: ignore[arg-type]
    except MultiPartException as error:
        raise Refusal(400, "form", f"the form cannot be read ({error.message}): send one file") from None
    try:
        files = [value for value in form.values() if not isinstance(value, str)]
        return await files[0].read() if files else b""
    finally:
        await form.close()


def _described(answer: "Answer", classes: Sequence[str], *, saliency: bool) -> dict[str, Any]:
    """An answer as JSON has it: see docs/howto/serve.md."""
    order = (-answer.probabilities).argsort(kind="stable")
    described: dict[str, Any] = {
        "classes": [
            {"name": classes[label], "label": int(label), "probability": float(answer.probabilities[label])}
            for label in order
        ]
    }
    if saliency:
        grey = np.round(255 * answer.saliency).astype(np.uint8)
        described |= {"seen": _data_url(answer.seen), "saliency": _data_url(grey)}
    return described


def _data_url(pixels: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _page(title: str, classes: Sequence[str]) -> tuple[str, str]:
    """The page, and the policy that lets it run its own script, ask this server, and do nothing else."""
    import html

    text = _PAGE.read_text(encoding="utf-8")
    for name, value in {"TITLE": title, "COUNT": str(len(classes)), "MAX_UPLOAD": str(MAX_UPLOAD)}.items():
        text = text.replace(f"%{name}%", html.escape(value))
    hashes = {}
    for tag in ("script", "style"):
        (inline,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        hashes[tag] = f"'sha256-{digest}'"
    policy = (
        f"default-src 'none'; script-src {hashes['script']}; style-src {hashes['style']}; img-src data: blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return text, policy
