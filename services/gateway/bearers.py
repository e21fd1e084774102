"""Tokens of an identity provider: JWTs that are signed with a key of its published set (RFC 7519, RFC 7517)."""

import asyncio
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import httpx
import jwt

from services.gateway.guard import NotKnown
from services.gateway.keys import accounts
from services.gateway.principal import Principal
from shared.access.records import Records
from shared.config.environment import Environment
from shared.contracts.access import Scope
from shared.contracts.ids import is_token

log = logging.getLogger("segue.gateway")

LEEWAY_S: Final = 10
APART_S: Final = 10.0
"""The set is fetched at most this often, however many tokens name a key that is not in it."""
FRESH_S: Final = 600.0
"""A set that is older is fetched again: a key that was taken out of it no longer counts."""
FETCH_WITHIN_S: Final = 5.0
MOST_BYTES: Final = 1_000_000
LONGEST_TOKEN: Final = 16_000
LATEST_S: Final = datetime.max.replace(tzinfo=UTC).timestamp() - 86_400
_FAMILIES: Final = {"RSA": ("RS", "PS"), "EC": ("ES",), "OKP": ("Ed",)}
"""Which algorithms a kind of key is for. A shared secret (`oct`) is none of them."""


class NoKeys(Exception):
    """The provider's keys cannot be had, and none are known from before."""


@dataclass(frozen=True, slots=True)
class _Key:
    key: Any
    algorithms: frozenset[str]


@dataclass(slots=True)
class KeySet:
    """The provider's public keys, from a URL or a file."""

    source: str
    algorithms: tuple[str, ...]
    _keys: dict[str, _Key] = field(default_factory=dict)
    _fetched_at: float = -1e9
    _tried_at: float = -1e9
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def key(self, kid: str | None) -> _Key | None:
        """Return a key by its name; without a name the only one. None: it is not in the set. Raises `NoKeys`."""
        now = time.monotonic()
        if self._named(kid) is None or now - self._fetched_at > FRESH_S:
            async with self._lock:
                now = time.monotonic()
                stale = self._named(kid) is None or now - self._fetched_at > FRESH_S
                if stale and now - self._tried_at > APART_S:
                    self._tried_at = now
                    await self._fetch()
        if not self._keys:
            raise NoKeys
        return self._named(kid)

    def _named(self, kid: str | None) -> _Key | None:
        if kid is None:
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(kid)

    async def _fetch(self) -> None:
        try:
            self._keys = _read(json.loads(await self._document()), self.algorithms)
            self._fetched_at = time.monotonic()
        except (OSError, ValueError, httpx.HTTPError, httpx.InvalidURL) as error:
            log.error("jwks.unreadable", extra={"source": self.source, "error": str(error) or type(error).__name__})

    async def _document(self) -> bytes:
        if "://" not in self.source:
            return await asyncio.to_thread(Path(self.source).read_bytes)
        async with (
            httpx.AsyncClient(timeout=FETCH_WITHIN_S, follow_redirects=False) as client,
            client.stream("GET", self.source) as answer,
        ):
            answer.raise_for_status()
            body = b""
            async for piece in answer.aiter_bytes():
                body += piece
                if len(body) > MOST_BYTES:
                    raise ValueError(f"a key set of more than {MOST_BYTES:,} bytes")
            return body


def _read(document: Any, algorithms: tuple[str, ...]) -> dict[str, _Key]:
    """Return the keys that can check signatures, by name; those without one by their place."""
    found = {}
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise ValueError("no JSON Web Key Set: an object with `keys` is expected")
    for place, one in enumerate(listed):
        families = _FAMILIES.get(str(one.get("kty"))) if isinstance(one, dict) else None
        if families is None or one.get("use", "sig") != "sig":
            continue
        fits = frozenset(name for name in algorithms if name.startswith(families) and one.get("alg", name) == name)
        try:
            key = jwt.PyJWK(one, algorithm=next(iter(fits))).key if fits else None
        except jwt.PyJWTError:
            continue
        if key is not None:
            found[str(one.get("kid", f"#{place}"))] = _Key(key, fits)
    return found


@dataclass(slots=True)
class Bearers:
    """Knows tokens."""

    records: Records
    keys: KeySet
    issuer: str
    audience: str
    tenant_claim: str
    scope_claim: str

    @classmethod
    def read(cls, environment: Environment, records: Records) -> "Bearers":
        """Return what the environment says; `auth_of` has looked that all of it is there."""
        return cls(
            records,
            KeySet(environment.jwt_jwks or "", environment.jwt_algorithms),
            environment.jwt_issuer or "",
            environment.jwt_audience or "",
            environment.jwt_tenant_claim,
            environment.jwt_scope_claim,
        )

    async def principal_of(self, credential: str | None) -> Principal:
        """Return whom a token stands for."""
        if credential is None:
            raise NotKnown("a token is missing: send `Authorization: Bearer <JWT>` from your identity provider")
        claims = await self._claims(credential)
        tenant = _at(claims, self.tenant_claim)
        if not isinstance(tenant, str) or not is_token(tenant):
            raise NotKnown(
                f"the token has no claim {self.tenant_claim!r} that could be a tenant (1 to 64 of A-Z a-z 0-9 _ -)"
            )
        said = _at(claims, self.scope_claim)
        names = said.split() if isinstance(said, str) else said if isinstance(said, list) else []
        scopes = frozenset(scope for scope in Scope if scope.value in names)
        name = f"token of {str(claims.get('sub', 'nobody named'))[:80]}"
        return Principal(tenant, None, scopes, await accounts(self.records, tenant), name, _ends_at(claims))

    async def _claims(self, token: str) -> Mapping[str, Any]:
        if len(token) > LONGEST_TOKEN:
            raise NotKnown("the token is too long to be one")
        try:
            head = jwt.get_unverified_header(token)
        except jwt.PyJWTError as error:
            raise NotKnown(f"this is no JWT: {error}") from error
        key = await self.keys.key(head.get("kid"))
        if key is None:
            raise NotKnown(f"the token names a key (kid {str(head.get('kid'))[:80]!r}) that its provider does not have")
        if head.get("alg") not in key.algorithms:
            allowed = ", ".join(sorted(key.algorithms))
            raise NotKnown(
                f"the token is signed with {str(head.get('alg'))[:20]!r}; with this key only {allowed} counts"
            )
        try:
            found: Mapping[str, Any] = jwt.decode(
                token,
                key.key,
                algorithms=sorted(key.algorithms),
                issuer=self.issuer,
                audience=self.audience,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iss", "aud"]},
            )
        except (jwt.PyJWTError, TypeError, ValueError) as error:
            raise NotKnown(f"the token does not count: {error}; get a new one from your identity provider") from error
        return found


def _ends_at(claims: Mapping[str, Any]) -> datetime:
    """Return when a token that was taken ends: at its `exp`, or with the leeway where that is over already."""
    exp, now = float(claims["exp"]), time.time()
    return datetime.fromtimestamp(min(exp if exp > now else exp + LEEWAY_S, LATEST_S), UTC)


def _at(claims: Mapping[str, Any], path: str) -> Any:
    """Return a claim: by its very name, else by the objects that dots lead into."""
    if path in claims:
        return claims[path]
    found: Any = claims
    for part in path.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found
