"""`GET /artifacts/{id}`: an image or a video that a model made."""

import re
from datetime import UTC, timedelta
from email.utils import format_datetime
from typing import Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from services.gateway.gateway import gateway_of
from services.gateway.http.errors import Refusal
from services.gateway.http.identity import who
from services.gateway.http.models import Failure

router = APIRouter(tags=["runs"])

_ID: Final = re.compile(r"[0-9a-f]{32}")
_RANGE: Final = re.compile(r"bytes=(\d{0,15})-(\d{0,15})")
_SHOWN: Final = re.compile(r"(?:image|video|audio)/[a-z0-9.+-]{1,60}")
_GUARDS: Final = {
    # A provider that lies about a type must not get a script into a page of ours.
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
    "cache-control": "private, max-age=3600, immutable",
    "accept-ranges": "bytes",
}


@router.get(
    "/artifacts/{artifact_id}",
    summary="An image or a video",
    response_class=Response,
    responses={
        200: {"content": {"image/*": {}, "video/*": {}}, "description": "The bytes."},
        206: {"content": {"image/*": {}, "video/*": {}}, "description": "The bytes of the range that was asked for."},
        404: {"model": Failure},
        416: {"model": Failure},
    },
)
async def read(request: Request, artifact_id: str) -> Response:
    """Return what a model made, its type and its size; `expires` says until when it is kept. Takes one `Range`."""
    gateway = gateway_of(request)
    objects = gateway.bus.artifacts
    info = await objects.info(f"{who(request).tenant}/{artifact_id}") if _ID.fullmatch(artifact_id) else None
    if info is None:
        raise Refusal(404, f"no artifact {artifact_id[:64]!r}: there never was, or it is no longer kept")
    told = info.metadata.get("media_type", "")
    shown = _SHOWN.fullmatch(told) is not None
    headers = {
        **_GUARDS,
        "content-type": told if shown else "application/octet-stream",
        "content-disposition": "inline" if shown else "attachment",
        "etag": f'"{info.digest}"',
    }
    if info.stored_at is not None:
        until = info.stored_at + timedelta(days=gateway.listings.artifact_days)
        headers["expires"] = format_datetime(until.astimezone(UTC), usegmt=True)
    if request.headers.get("if-none-match") == headers["etag"]:
        return Response(status_code=304, headers=headers)
    start, end, status = 0, info.size, 200
    if (asked := request.headers.get("range")) is not None and (found := _RANGE.fullmatch(asked)) is not None:
        first, last = found.groups()
        if first:
            start, end = int(first), min(info.size, int(last) + 1 if last else info.size)
        elif last:
            start = max(0, info.size - int(last))
        if start >= end:
            raise Refusal(416, f"the artifact has {info.size:,} bytes: ask for a range within them")
        status = 206
        headers["content-range"] = f"bytes {start}-{end - 1}/{info.size}"
    headers["content-length"] = str(end - start)
    return StreamingResponse(objects.read(info, start, end), status, headers)
