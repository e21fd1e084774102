"""What a provider has made and put at a URL: fetched within bounds, its key shown to nobody else."""

from collections.abc import Mapping
from typing import Final

import httpx

from services.executor.providers import Failed, Media
from services.executor.providers.failures import read_failure
from services.executor.providers.wire import MAX_MEDIA_BYTES, Wire
from services.executor.taxonomy import MALFORMED, UNAVAILABLE
from shared.config.providers import Route
from shared.outward import FetchFailed, Forbidden, Outward

FETCH_WITHIN_S: Final = 120.0
REDIRECTS: Final = 3
_UNTOLD: Final = frozenset({"", "application/octet-stream", "binary/octet-stream"})


async def downloaded(
    address: str, route: Route, wire: Wire, outward: Outward, headers: Mapping[str, str], *, fallback: str
) -> Media | Failed:
    """Return what is at an address. `headers` (a key) go to the provider's own origin alone.

    The provider's own origin is whoever the configuration names; any other address is asked like one that a stranger
    gave. Failing to fetch what was paid for is worth another try.
    """
    try:
        url, own = httpx.URL(address), httpx.URL(route.base_url)
    except httpx.InvalidURL as error:
        return Failed(MALFORMED, f"the result's address is no URL: {error}", 200, cost_usd=None)
    if _origin(url) == _origin(own):
        reply = await wire.exchange("GET", url, {**headers, "accept-encoding": "identity"}, limit=MAX_MEDIA_BYTES)
        if isinstance(reply, Failed):
            return reply
        onward = reply.headers.get("location")
        if reply.status == 200:
            return _media(reply.data, reply.headers.get("content-type", ""), fallback)
        if not (300 <= reply.status < 400 and onward):
            return read_failure(reply.status, reply.headers, reply.data, 0.0)
        url = url.join(onward)
        if _origin(url) == _origin(own):
            return Failed(MALFORMED, "the result's address redirects in a circle", reply.status, cost_usd=None)
    try:
        found = await outward.get(str(url), most_bytes=MAX_MEDIA_BYTES, within_s=FETCH_WITHIN_S, redirects=REDIRECTS)
    except Forbidden as error:
        return Failed(MALFORMED, f"the result's address is not asked: {error}", 200, cost_usd=None)
    except FetchFailed as error:
        return Failed(UNAVAILABLE, f"the result cannot be fetched: {error}", error.status, cost_usd=None)
    return _media(found.data, found.media_type, fallback)


def _media(data: bytes, kind: str, fallback: str) -> Media:
    told = kind.partition(";")[0].strip().lower()
    return Media(data, fallback if told in _UNTOLD else told)


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port
