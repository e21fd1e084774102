"""Tokens of an identity provider: which count, and which only look as if they did."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from services.gateway import bearers
from services.gateway.identification import Identification
from shared.bus.server import NatsServer
from shared.config.environment import Environment
from tests.conftest import eventually
from tests.gateway.guarded import bearing, guarded

ISSUER, AUDIENCE = "https://id.example.com/", "segue"
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())


def jwk(private: Any, kid: str, **fields: Any) -> dict[str, Any]:
    kinds: Mapping[bool, Any] = {True: jwt.algorithms.RSAAlgorithm, False: jwt.algorithms.ECAlgorithm}
    public = kinds[isinstance(private, rsa.RSAPrivateKey)].to_jwk(private.public_key(), as_dict=True)
    return {**public, "kid": kid, "use": "sig", **fields}


def token(private: Any = RSA, kid: str | None = "one", algorithm: str = "RS256", **claims: Any) -> str:
    said = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "exp": int(time.time()) + 300,
        "sub": "ada",
        "tenant": "acme",
        "scope": "openid read chat",
        **claims,
    }
    given = {name: value for name, value in said.items() if value is not None}
    return jwt.encode(given, private, algorithm=algorithm, headers={"kid": kid} if kid else None)


async def counts(http: httpx.AsyncClient, said: str) -> bool:
    """Whether a token is taken."""
    return (await http.get("/models", headers=bearing(said))).status_code == 200


class Provider:
    """An identity provider's key set, on a port of its own."""

    def __init__(self) -> None:
        self.keys: list[dict[str, Any]] = [jwk(RSA, "one"), jwk(EC, "two")]
        self.asked = 0
        self.down = False
        self.url = ""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.asked += 1
        body = json.dumps({"keys": self.keys}).encode()
        status = b"503 Down" if self.down else b"200 OK"
        head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        writer.write(head % (status, len(body)) + body)
        await writer.drain()
        writer.close()


@asynccontextmanager
async def provider() -> AsyncIterator[Provider]:
    found = Provider()
    server = await asyncio.start_server(found.answer, "127.0.0.1", 0)
    found.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/jwks.json"
    async with server:
        yield found


def chosen(jwks: str, **more: str) -> Identification:
    given = {
        "SEGUE_AUTH": "jwt",
        "SEGUE_JWT_JWKS": jwks,
        "SEGUE_JWT_ISSUER": ISSUER,
        "SEGUE_JWT_AUDIENCE": AUDIENCE,
        **more,
    }
    return Identification.read(Environment.read(given))


async def test_a_token_of_the_provider_opens_what_its_scopes_say(own_nats_server: NatsServer) -> None:
    """Its tenant is the claim's; RSA and elliptic curves alike."""
    async with (
        provider() as issuer,
        guarded(own_nats_server, identification=chosen(issuer.url)) as (http, backstage),
    ):
        for one in (token(), token(EC, "two", "ES256"), token(scope=["read", "chat"])):
            assert (await http.get("/models", headers=bearing(one))).status_code == 200
            assert (await http.post("/chat", json={"message": "x"}, headers=bearing(one))).status_code == 200
            assert (await http.get("/admin/tenants", headers=bearing(one))).status_code == 403
        assert {command.run.tenant for command in backstage.taken} == {"acme"}
        assert {command.run.key for command in backstage.taken} == {None}
        assert issuer.asked == 1
        assert (await http.get("/models", headers=bearing(token(scope="openid")))).status_code == 403
        admin = await http.get("/admin/tenants", headers=bearing(token(scope="admin")))
        assert admin.status_code == 200
        unused = await http.get("/admin/keys", headers=bearing(token(scope="admin")))
        assert (unused.status_code, "SEGUE_AUTH=keys" in unused.text) == (409, True)


def confused() -> str:
    """Return a token signed with the *public* key as if it were a shared secret."""
    public = RSA.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return crafted({"alg": "HS256", "kid": "one", "typ": "JWT"}, lambda text: hmac.digest(public, text, hashlib.sha256))


def crafted(head: Mapping[str, Any], sign: Any) -> str:
    claims = jwt.decode(token(scope="admin read"), options={"verify_signature": False})
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (head, claims)]
    text = b".".join(parts)
    return (text + b"." + base64.urlsafe_b64encode(sign(text)).rstrip(b"=")).decode()


WRONG: Mapping[str, Any] = {
    "expired": lambda: token(exp=int(time.time()) - 60),
    "without an end": lambda: token(exp=None),
    "of another issuer": lambda: token(iss="https://evil.example.com/"),
    "without an issuer": lambda: token(iss=None),
    "for another audience": lambda: token(aud="somebody-else"),
    "without an audience": lambda: token(aud=None),
    "not yet valid": lambda: token(nbf=int(time.time()) + 600),
    "of another key": lambda: token(rsa.generate_private_key(public_exponent=65537, key_size=2048)),
    "of an unknown kid": lambda: token(kid="three"),
    "without a kid, of several keys": lambda: token(kid=None),
    "with the kid of a key of another kind": lambda: token(EC, "one", "ES256"),
    "with an algorithm that is not allowed": lambda: token(algorithm="RS512"),
    "signed by nobody": lambda: crafted({"alg": "none", "kid": "one"}, lambda _: b""),
    "signed with the public key as a secret": confused,
    "without a tenant": lambda: token(tenant=None),
    "with a tenant that reaches into another's subjects": lambda: token(tenant="acme.>"),
    "with a tenant and a line break": lambda: token(tenant="acme\n"),
    "with a list for a tenant": lambda: token(tenant=["acme"]),
    "cut short": lambda: token()[:-10],
    "too long": lambda: token(padding="x" * 20_000),
    "no token at all": lambda: "hello",
}


async def test_what_does_not_count_is_refused_with_the_reason(own_nats_server: NatsServer) -> None:
    async with provider() as issuer, guarded(own_nats_server, identification=chosen(issuer.url)) as (http, _):
        assert (await http.get("/models", headers=bearing(token()))).status_code == 200
        for name, made in WRONG.items():
            answer = await http.get("/models", headers=bearing(made()))
            assert answer.status_code == 401, name
            assert answer.headers["www-authenticate"].startswith("Bearer"), name
            assert "token" in answer.json()["detail"] or "JWT" in answer.json()["detail"], name
        assert (await http.get("/models")).status_code == 401


async def test_a_new_key_of_the_provider_is_fetched_once_and_not_for_every_stranger(
    own_nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many tokens name keys that are not there: at most one fetch in a while."""
    monkeypatch.setattr(bearers, "APART_S", 0.5)
    fresh = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    async with provider() as issuer, guarded(own_nats_server, identification=chosen(issuer.url)) as (http, _):
        assert (await http.get("/models", headers=bearing(token()))).status_code == 200
        strangers = [token(fresh, f"stranger-{number}") for number in range(100)]
        began = time.monotonic()
        answers = await asyncio.gather(*(http.get("/models", headers=bearing(one)) for one in strangers))
        assert {answer.status_code for answer in answers} == {401}
        assert issuer.asked <= 3 + (time.monotonic() - began) / 0.5
        issuer.keys.append(jwk(fresh, "fresh"))
        await eventually(lambda: counts(http, token(fresh, "fresh")), within_s=30)
        assert (await http.get("/models", headers=bearing(token()))).status_code == 200


async def test_a_provider_that_is_down_is_told_of_and_known_keys_still_count(
    own_nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503 while nothing is known; with what was fetched before it goes on."""
    monkeypatch.setattr(bearers, "APART_S", 0.05)
    async with provider() as issuer:
        issuer.down = True
        async with guarded(own_nats_server, identification=chosen(issuer.url)) as (http, _):
            answer = await http.get("/models", headers=bearing(token()))
            assert (answer.status_code, "SEGUE_JWT_JWKS" in answer.text) == (503, True)
            issuer.down = False
            await eventually(lambda: counts(http, token()), within_s=30)
            issuer.down = True
            monkeypatch.setattr(bearers, "FRESH_S", 0.0)
            assert (await http.get("/models", headers=bearing(token()))).status_code == 200


async def test_keys_from_a_file_and_claims_by_other_names(own_nats_server: NatsServer, tmp_path: Path) -> None:
    """A symmetric key in the set is no key; claims may lie in objects."""
    secret = {"kty": "oct", "k": base64.urlsafe_b64encode(b"x" * 32).decode(), "kid": "shared", "alg": "HS256"}
    file = tmp_path / "jwks.json"
    file.write_text(json.dumps({"keys": [secret, jwk(RSA, "one", alg="RS256"), jwk(EC, "enc", use="enc")]}))
    names = {"SEGUE_JWT_TENANT_CLAIM": "org.id", "SEGUE_JWT_SCOPE_CLAIM": "permissions"}
    async with guarded(own_nats_server, identification=chosen(str(file), **names)) as (http, _):
        good = token(org={"id": "acme"}, permissions=["read"], tenant=None, scope=None)
        assert (await http.get("/models", headers=bearing(good))).status_code == 200
        forged = jwt.encode({"iss": ISSUER}, b"x" * 32, algorithm="HS256", headers={"kid": "shared"})
        assert (await http.get("/models", headers=bearing(forged))).status_code == 401
        assert (await http.get("/models", headers=bearing(token(EC, "enc", "ES256")))).status_code == 401
