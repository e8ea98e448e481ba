"""What the browser asks for beside Gradio's own: photographs go in one by one, pictures and archives come out.

Each address begins with the visitor's token, which nobody else knows.
"""

from __future__ import annotations

import json
import re
import secrets
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from semtransforms.app import texts
from semtransforms.app.bringing import CHUNK, ZIP, class_name, move_in, safe_place, take_in
from semtransforms.app.looking import thumbnail
from semtransforms.app.visitors import Visitor, Visitors
from semtransforms.data.images import UNDECODABLE

BASE = "semtransforms"
HEADERS = {"Cache-Control": "private, no-store", "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff"}
# the report is a page of ours, but the names in it are the visitor's
ALONE = {"Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:"}


def routes(visitors: Visitors) -> list[Route]:
    """All of them.

    Args:
        visitors: of the page.
    """

    async def bring(visitor: Visitor, request: Request) -> Response:
        return await _bring(visitors, visitor, request)

    def of_visitor(act: Callable[[Visitor, Request], Any]) -> Callable[[Request], Any]:
        async def answer(request: Request) -> Response:
            try:
                visitor = visitors.get(request.path_params["token"])
            except ValueError as error:
                return PlainTextResponse(str(error), 404, HEADERS)
            response: Response = await act(visitor, request)
            response.headers.update(HEADERS)
            return response

        return answer

    table = (
        ("POST", "bring", "", bring),
        ("POST", "label", "", _label),
        ("GET", "thumb", "/{name:path}", _thumb),
        ("GET", "shown", "/{name}", _shown),
        ("GET", "published.zip", "", _published),
        ("GET", "private.zip", "", _private),
        ("GET", "report.html", "", _report),
        ("GET", "published", "/{name:path}", _file),
    )
    return [
        Route(f"/{BASE}/{{token}}/{what}{rest}", of_visitor(act), methods=[method]) for method, what, rest, act in table
    ]


async def _bring(visitors: Visitors, visitor: Visitor, request: Request) -> Response:
    """One file arrives; what is wrong with it is told when the page shows what was found."""
    name = request.query_params.get("path", "")
    batch = re.sub("[^a-z0-9]", "", request.query_params.get("batch", ""))[:32] or "0"
    if visitor.is_busy:
        return _refuse(visitor, texts.BUSY)
    async with visitor.gate:
        return await _take(visitors, visitor, request, name, batch)


async def _take(visitors: Visitors, visitor: Visitor, request: Request, name: str, batch: str) -> Response:
    file = visitor.folder / f"arriving-{secrets.token_hex(8)}"
    try:
        visitor.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not await _receive(request.stream(), file, visitors, visitor):
            return _refuse(visitor, visitors.no_room(visitor, name))
        if name.lower().endswith(ZIP):
            async with visitors.unpacking:
                await _place(visitors, visitor, file, name, batch)
                await run_in_threadpool(visitor.weigh)
                await run_in_threadpool(visitors.weigh)
        else:
            await _place(visitors, visitor, file, name, batch)
    except ValueError as error:
        return _refuse(visitor, str(error))
    except OSError as error:
        return _refuse(visitor, texts.DISK_FULL.format(name=name, why=error.strerror or error))
    except ClientDisconnect:  # the page was closed meanwhile
        return Response(status_code=400)
    finally:
        file.unlink(missing_ok=True)
    return Response(status_code=204)


async def _place(visitors: Visitors, visitor: Visitor, file: Path, name: str, batch: str) -> None:
    folder, room = visitor.arriving / batch, visitors.room(visitor)
    visitor.note(*await run_in_threadpool(take_in, file, name, folder, room))


async def _receive(stream: AsyncIterator[bytes], file: Path, visitors: Visitors, visitor: Visitor) -> bool:
    """Write what arrives; whether there was room for it."""
    size, is_whole = 0, False
    try:
        with file.open("xb") as written:
            async for chunk in stream:
                if len(chunk) > visitors.room(visitor):
                    return False
                size += len(chunk)
                visitors.count(visitor, len(chunk))
                written.write(chunk)
        is_whole = True
    finally:
        if not is_whole:
            visitors.count(visitor, -size)
    return is_whole


def _refuse(visitor: Visitor, line: str) -> Response:
    visitor.note(line)
    return Response(status_code=204)


async def _label(visitor: Visitor, request: Request) -> Response:
    """Classes that were typed beside the pictures: file to class."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > CHUNK:
            return PlainTextResponse("", 413)
    try:
        typed = {str(safe_place(file)): label for file, label in json.loads(body).items()}
    except (ValueError, AttributeError, RecursionError) as error:
        return PlainTextResponse(str(error), 400)
    with visitor.lock:
        for file, label in typed.items():
            place = visitor.unlabelled / file
            if not str(label).strip() or not place.is_file() or visitor.is_busy:
                continue
            try:
                move_in(place, visitor.photographs / class_name(str(label)) / place.name)
            except ValueError as error:
                visitor.note(str(error))
        visitor.previews.clear()
    return Response(status_code=204)


async def _thumb(visitor: Visitor, request: Request) -> Response:
    try:
        file = visitor.unlabelled / safe_place(request.path_params["name"])
        return Response(await run_in_threadpool(thumbnail, file), media_type="image/jpeg")
    except (*UNDECODABLE, Image.DecompressionBombError):
        return Response(status_code=404)


async def _shown(visitor: Visitor, request: Request) -> Response:
    try:  # read at once: the next picture may take its place meanwhile
        file = visitor.shown / safe_place(request.path_params["name"])
        return Response(await run_in_threadpool(file.read_bytes), media_type="image/png")
    except (ValueError, OSError):
        return _missing()


async def _file(visitor: Visitor, request: Request) -> Response:
    done = visitor.finished
    return _missing() if done is None else _send(Path(done.order["out"]), request.path_params["name"])


async def _published(visitor: Visitor, request: Request) -> Response:
    done = visitor.finished
    return _missing() if done is None else _archive(Path(done.order["out"]), "published")


async def _private(visitor: Visitor, request: Request) -> Response:
    done = visitor.finished
    return _missing() if done is None else _archive(Path(done.order["private"]), "private-keep-to-yourself")


async def _report(visitor: Visitor, request: Request) -> Response:
    report = visitor.finished and visitor.finished.result and visitor.finished.result["report"]
    return FileResponse(Path(report) / "report.html", headers=ALONE) if report else _missing()


def _missing() -> Response:
    return PlainTextResponse(texts.NOT_YET, 404)


def _send(folder: Path, name: str) -> Response:
    try:
        file = folder / safe_place(name)
    except ValueError:
        return _missing()
    return FileResponse(file) if file.is_file() else _missing()


def _archive(folder: Path, name: str) -> Response:
    # made as it is sent: it takes no room on a disk that may be full, and none in memory
    headers = {"Content-Disposition": f'attachment; filename="{name}.zip"'}
    return StreamingResponse(zipped(folder, name), media_type="application/zip", headers=headers)


class _Sink:
    """Where an archive is written to, and taken from bit by bit."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self.parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def take(self) -> bytes:
        """What was written since the last time."""
        parts, self.parts = self.parts, []
        return b"".join(parts)


def zipped(folder: Path, name: str) -> Iterator[bytes]:
    """A folder as a zip archive, part by part; images are not packed, since they are already.

    Args:
        folder: with all that is in it.
        name: of the folder in the archive.
    """
    sink = _Sink()
    with zipfile.ZipFile(sink, "w") as archive:  # type: ignore[call-overload]
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            entry = zipfile.ZipInfo.from_file(file, f"{name}/{file.relative_to(folder).as_posix()}")
            with archive.open(entry, "w") as packed, file.open("rb") as read:
                while chunk := read.read(CHUNK):
                    packed.write(chunk)
                    yield sink.take()
    yield sink.take()
