"""HTTP to addresses that somebody else has named: images in requests, results at a provider's URL, callbacks.

https only, each host resolved once and connected to at the very address that was checked, never into networks of our
own: loopback, private, link-local (where clouds keep their metadata), and their spellings in IPv6. Redirects are not
followed unless asked for, and each is checked like the first. `allowed` opens single networks for installations that
have image hosts of their own; these may be asked over plain http too.
"""

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import urljoin, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MOST_URL_CHARS: Final = 4_096
CONNECT_WITHIN_S: Final = 5.0
CLOSED: Final = "is in a network that is not asked; whoever runs Segue opens networks with SEGUE_ALLOWED_NETWORKS"
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


class Forbidden(Exception):
    """An address that is not asked, and why."""


class FetchFailed(Exception):
    """An address that was asked gave nothing that can be used, and why."""

    def __init__(self, why: str, status: int | None = None) -> None:
        super().__init__(why)
        self.status = status


@dataclass(frozen=True, slots=True)
class Fetched:
    """What was found at an address."""

    data: bytes
    media_type: str
    """As the server says, without parameters, in lower case."""


def inner(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 one stands for, else itself."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address.sixtofour is not None:
            return address.sixtofour
        if address.teredo is not None:
            return address.teredo[1]
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address


def is_open(address: Address, allowed: Sequence[Network] = (), *, plain: bool = False) -> bool:
    """Whether an address may be connected to; `plain`: without TLS."""
    meant = inner(address)
    if any(meant.version == network.version and meant in network for network in allowed):
        return True
    return not plain and meant.is_global and not meant.is_multicast and not meant.is_reserved


class _Checked(AbstractResolver):
    """Resolves a name, and refuses it when one of its addresses may not be connected to."""

    def __init__(self, allowed: Sequence[Network], *, plain: bool) -> None:
        self._allowed, self._plain = allowed, plain

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, family=socket.AF_UNSPEC)
        except OSError as error:
            raise FetchFailed(f"the host {host!r} has no address: {error.strerror or error}") from error
        except UnicodeError as error:
            raise FetchFailed(f"the host {host[:80]!r} is no name: a part of it is empty or too long") from error
        results: list[ResolveResult] = []
        for kind, _, protocol, _, place in found:
            address = ipaddress.ip_address(str(place[0]).partition("%")[0])
            if not is_open(address, self._allowed, plain=self._plain):
                raise Forbidden(f"the host {host!r} is at {address}, which {CLOSED}")
            results.append(
                ResolveResult(
                    hostname=host,
                    host=str(address),
                    port=int(place[1]),
                    family=kind,
                    proto=protocol,
                    flags=socket.AI_NUMERICHOST,
                )
            )
        return results

    async def close(self) -> None:
        return None


class Outward:
    """A client for such addresses; one a process."""

    def __init__(self, allowed: Sequence[Network] = ()) -> None:
        self._allowed = tuple(allowed)
        self._sessions: dict[str, aiohttp.ClientSession] = {}

    def check(self, url: str) -> None:
        """Raise `Forbidden` for an address that would not be asked, as far as its text tells."""
        if len(url) > MOST_URL_CHARS:
            raise Forbidden(f"the URL is longer than {MOST_URL_CHARS:,} characters")
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname, parts.port
        except ValueError as error:
            raise Forbidden(f"not a URL: {error}") from error
        if host is None or parts.scheme not in ("http", "https"):
            raise Forbidden("only https:// URLs are asked")
        if parts.username is not None or parts.password is not None:
            raise Forbidden("a URL with a user name or password in it is not asked")
        if not host.isascii():  # 127。0。0。1 is an address to the client, which normalises it
            raise Forbidden("a host with other characters than ASCII is written as xn--…")
        plain = parts.scheme == "http"
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            if plain and not self._allowed:
                raise Forbidden("only https:// URLs are asked") from None
            return
        if not is_open(address, self._allowed):
            raise Forbidden(f"{address} {CLOSED}")
        if not is_open(address, self._allowed, plain=plain):
            raise Forbidden("only https:// URLs are asked")

    async def get(
        self,
        url: str,
        *,
        most_bytes: int,
        within_s: float,
        headers: Mapping[str, str] | None = None,
        redirects: int = 0,
    ) -> Fetched:
        """Return what is at an address. `headers` go to the first host alone. Raises `Forbidden`, `FetchFailed`."""
        try:
            async with asyncio.timeout(within_s):
                for _ in range(redirects + 1):
                    async with self.send("GET", url, headers=headers) as response:
                        where = response.headers.get("location")
                        if response.status in (301, 302, 303, 307, 308) and where:
                            onward = _joined(url, where)
                            if urlsplit(onward).netloc != urlsplit(url).netloc:
                                headers = None
                            url = onward
                            continue
                        if response.status != 200:
                            raise FetchFailed(f"it answered {response.status}", response.status)
                        return await _read(response, most_bytes)
        except TimeoutError as error:
            raise FetchFailed(f"no complete answer within {within_s:.0f} s") from error
        raise FetchFailed("it redirects to somewhere else, which is not followed")

    @asynccontextmanager
    async def send(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send one request. Raises `Forbidden`, `FetchFailed`."""
        self.check(url)
        session = self._session(plain=urlsplit(url).scheme == "http")
        sent = {"user-agent": "segue", "accept-encoding": "identity", **(headers or {})}
        try:
            async with session.request(method, url, data=body, headers=sent, allow_redirects=False) as response:
                yield response
        except aiohttp.ClientError as error:
            raise FetchFailed(" ".join((str(error) or type(error).__name__).split())[:200]) from error

    async def close(self) -> None:
        for session in self._sessions.values():
            await session.close()

    def _session(self, *, plain: bool) -> aiohttp.ClientSession:
        found = self._sessions.get("http" if plain else "https")
        if found is None:
            resolver = _Checked(self._allowed, plain=plain)
            connector = aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False, limit=64, force_close=True)
            timeout = aiohttp.ClientTimeout(total=None, connect=CONNECT_WITHIN_S * 2, sock_connect=CONNECT_WITHIN_S)
            found = self._sessions["http" if plain else "https"] = aiohttp.ClientSession(
                connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False, timeout=timeout
            )
        return found


def _joined(url: str, where: str) -> str:
    try:
        onward = urljoin(url, where)
        urlsplit(onward)
    except ValueError as error:
        raise FetchFailed(f"it redirects to what is not a URL: {error}") from error
    return onward


async def _read(response: aiohttp.ClientResponse, most_bytes: int) -> Fetched:
    announced = response.content_length
    if announced is not None and announced > most_bytes:
        raise FetchFailed(f"it is larger than {most_bytes:,} bytes")
    parts, got = [], 0
    async for chunk in response.content.iter_any():
        got += len(chunk)
        if got > most_bytes:
            raise FetchFailed(f"it is larger than {most_bytes:,} bytes")
        parts.append(chunk)
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    return Fetched(b"".join(parts), kind)
