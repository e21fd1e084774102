"""What the environment says: where things are, and the secrets. One meaning a variable, everywhere."""

import base64
import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from pydantic import SecretStr

from shared.config.errors import ConfigInvalid, Problem
from shared.contracts.ids import is_token

LOG_LEVELS: Final = ("debug", "info", "warning", "error", "critical")
AUTH: Final = ("off", "keys", "jwt")
ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signed with a private key that only the issuer has. Never `none`, never a shared secret (HS…)."""
LEAST_SECRET: Final = 32
T = TypeVar("T")
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """The variables of the system. An empty variable is one that is not set."""

    config: Path | None = None
    """SEGUE_CONFIG: the configuration file; unset: in the working directory, else beside the packages."""
    nats_url: str = "nats://127.0.0.1:4222"
    """SEGUE_NATS_URL: the NATS server, or several with commas between; unset: the embedded server."""
    nats_url_given: bool = False
    """Whether SEGUE_NATS_URL is set: then `segue up` uses that server instead of an embedded one."""
    nats_port: int = 4222
    """SEGUE_NATS_PORT: the embedded server's port."""
    data_dir: Path = Path(".segue")
    """SEGUE_DATA_DIR: where the embedded server keeps its files."""
    history_url: str = "sqlite:///.segue/history.db"
    """SEGUE_HISTORY_URL: where lists and sums come from: SQLite, `postgresql://user:password@host/database`, or `off`;
    unset: `history.db` in SEGUE_DATA_DIR."""
    history_days: int = 400
    """SEGUE_HISTORY_DAYS: for how long what calls cost is kept; runs are listed as long as the log has them."""
    port: int = 8000
    """PORT: the gateway's port."""
    host: str = "127.0.0.1"
    """SEGUE_HOST: the address that servers listen on."""
    health_port: int | None = None
    """SEGUE_HEALTH_PORT: port of a service's health and metrics; unset: its own default. The gateway has PORT."""
    log_level: str = "info"
    """SEGUE_LOG_LEVEL: how much is logged: debug, info, warning, error or critical; unset: `system.logLevel` counts."""
    log_level_given: bool = False
    """Whether SEGUE_LOG_LEVEL is set."""
    replicas: int = 1
    """SEGUE_REPLICAS: copies that JetStream keeps of every stream: 1 on one server, 3 on a cluster of three or more."""
    openrouter_api_key: SecretStr | None = None
    """OPENROUTER_API_KEY: key of OpenRouter, which serves the text roles."""
    google_ai_api_key: SecretStr | None = None
    """GOOGLE_AI_API_KEY: key of Google's Gemini API, which serves the image and video roles."""
    openai_base_url: str | None = None
    """SEGUE_OPENAI_BASE_URL: an OpenAI-compatible server that plays every text role."""
    openai_api_key: SecretStr | None = None
    """SEGUE_OPENAI_API_KEY: its key, if it wants one."""
    openai_model: str | None = None
    """SEGUE_OPENAI_MODEL: its model for every role; unset: the ids of the configuration."""
    prices: Path | None = None
    """SEGUE_PRICES: a JSON file with prices of your own, over those of the price table."""
    simulator_url: str | None = None
    """SEGUE_SIMULATOR_URL: base URL of a simulator that plays OpenRouter."""
    simulator_port: int = 8200
    """SEGUE_SIMULATOR_PORT: the port on which `segue up` starts the simulator."""
    allowed_networks: tuple[Network, ...] = ()
    """SEGUE_ALLOWED_NETWORKS: networks of your own, such as 10.1.0.0/16, from which images may be fetched and to which
    callbacks may go, with commas between; unset: public addresses alone."""
    auth: str | None = None
    """SEGUE_AUTH: who may use the API: `off` (everybody who reaches it), `keys` (API keys) or `jwt` (tokens of an
    identity provider); unset: off while SEGUE_HOST is a loopback address, and otherwise the gateway does not start."""
    key_secret: SecretStr | None = None
    """SEGUE_KEY_SECRET: what API keys are stored under, 32 characters or more; several with commas between while you
    change it: the first makes new keys. Unset, with NATS on this machine: made once, as `key-secret` in
    SEGUE_DATA_DIR."""
    jwt_jwks: str | None = None
    """SEGUE_JWT_JWKS: the keys of the identity provider: a URL, or a file."""
    jwt_issuer: str | None = None
    """SEGUE_JWT_ISSUER: who has to have issued a token (`iss`)."""
    jwt_audience: str | None = None
    """SEGUE_JWT_AUDIENCE: for whom it has to be issued (`aud`)."""
    jwt_algorithms: tuple[str, ...] = ("RS256", "ES256")
    """SEGUE_JWT_ALGORITHMS: how a token may be signed, with commas between."""
    jwt_tenant_claim: str = "tenant"
    """SEGUE_JWT_TENANT_CLAIM: the claim that names the tenant; dots lead into objects."""
    jwt_scope_claim: str = "scope"
    """SEGUE_JWT_SCOPE_CLAIM: the claim with the scopes: a list, or a text with spaces between."""
    callback_secrets: Mapping[str, tuple[bytes, ...]] = field(default_factory=dict, repr=False)
    """SEGUE_CALLBACK_SECRETS: what callbacks are signed with, by tenant, newest first:
    `default=whsec_… whsec_…,acme=whsec_…`; a tenant without one gets no callbacks."""
    bus_tenants: Mapping[str, str] = field(default_factory=dict, repr=False)
    """SEGUE_BUS_TENANTS: outside systems that `segue up` lets in over its embedded NATS server, each in an account of
    its own: `acme=a-password,other=…`, the user is called like the tenant; see docs/bus.md."""
    variables: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    """All of them: the keys of `providers` have names of their own."""

    @classmethod
    def read(cls, env: Mapping[str, str]) -> "Environment":
        """Read the variables. Raises `ConfigInvalid` naming every variable whose value cannot be used."""
        take = _Taker(env)
        nats_port = take("SEGUE_NATS_PORT", _port, 4222)
        data_dir = take("SEGUE_DATA_DIR", Path, Path(".segue"))
        found = cls(
            config=take("SEGUE_CONFIG", Path, None),
            nats_url=take("SEGUE_NATS_URL", _nats_url, f"nats://127.0.0.1:{nats_port}"),
            nats_url_given=bool(env.get("SEGUE_NATS_URL", "").strip()),
            nats_port=nats_port,
            data_dir=data_dir,
            history_url=take("SEGUE_HISTORY_URL", _history_url, f"sqlite:///{data_dir / 'history.db'}"),
            history_days=take("SEGUE_HISTORY_DAYS", _days, 400),
            port=take("PORT", _port, 8000),
            host=take("SEGUE_HOST", _host, "127.0.0.1"),
            health_port=take("SEGUE_HEALTH_PORT", _port, None),
            log_level=take("SEGUE_LOG_LEVEL", _log_level, "info"),
            log_level_given=bool(env.get("SEGUE_LOG_LEVEL", "").strip()),
            replicas=take("SEGUE_REPLICAS", _replicas, 1),
            openrouter_api_key=take("OPENROUTER_API_KEY", _key, None),
            google_ai_api_key=take("GOOGLE_AI_API_KEY", _key, None),
            openai_base_url=take("SEGUE_OPENAI_BASE_URL", _url, None),
            openai_api_key=take("SEGUE_OPENAI_API_KEY", _key, None),
            openai_model=take("SEGUE_OPENAI_MODEL", str, None),
            prices=take("SEGUE_PRICES", Path, None),
            simulator_url=take("SEGUE_SIMULATOR_URL", _url, None),
            simulator_port=take("SEGUE_SIMULATOR_PORT", _port, 8200),
            allowed_networks=take("SEGUE_ALLOWED_NETWORKS", _networks, ()),
            auth=take("SEGUE_AUTH", _auth, None),
            key_secret=take("SEGUE_KEY_SECRET", _key_secret, None),
            jwt_jwks=take("SEGUE_JWT_JWKS", str, None),
            jwt_issuer=take("SEGUE_JWT_ISSUER", str, None),
            jwt_audience=take("SEGUE_JWT_AUDIENCE", str, None),
            jwt_algorithms=take("SEGUE_JWT_ALGORITHMS", _algorithms, ("RS256", "ES256")),
            jwt_tenant_claim=take("SEGUE_JWT_TENANT_CLAIM", str, "tenant"),
            jwt_scope_claim=take("SEGUE_JWT_SCOPE_CLAIM", str, "scope"),
            bus_tenants=take("SEGUE_BUS_TENANTS", _tenants, {}),
            callback_secrets=take("SEGUE_CALLBACK_SECRETS", _secrets, {}),
            variables=dict(env),
        )
        if take.problems:
            raise ConfigInvalid("environment", take.problems)
        return found

    def secret(self, name: str) -> SecretStr | None:
        """Return a variable that holds a key; None when it is not set. Raises `ConfigInvalid`."""
        take = _Taker(self.variables)
        found = take(name, _key, None)
        if take.problems:
            raise ConfigInvalid("environment", take.problems)
        return found

    def key(self, name: str) -> SecretStr | None:
        """Return one of the two keys that have fields of their own, by its variable."""
        return {"OPENROUTER_API_KEY": self.openrouter_api_key, "GOOGLE_AI_API_KEY": self.google_ai_api_key}.get(name)

    def level(self, configured: str) -> str:
        """Return the log level: SEGUE_LOG_LEVEL where it is set, else the configuration's."""
        return self.log_level if self.log_level_given else configured


class _Wrong(ValueError):
    """What was expected of a variable."""


class _Taker:
    """Takes variables one by one and remembers what is wrong with them."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env
        self.problems: list[Problem] = []

    def __call__(self, name: str, read: Callable[[str], T], default: T) -> T:
        text = self._env.get(name, "").strip()
        if not text:
            return default
        try:
            return read(text)
        except _Wrong as wrong:
            hidden = read in (_key, _secrets, _tenants, _key_secret)
            found = "a value that is not shown" if hidden else repr(text)
            self.problems.append(Problem(name, found, str(wrong)))
            return default


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:6]) <= 65_535:
        raise _Wrong("a port number from 1 to 65535")
    return int(text)


def _days(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:6]) <= 36_500:
        raise _Wrong("a number of days from 1 to 36500")
    return int(text)


def _history_url(text: str) -> str:
    if text.lower() == "off":
        return "off"
    scheme, separator, rest = text.partition("://")
    if not separator or not rest.strip("/") or scheme not in ("sqlite", "postgresql", "postgres"):
        raise _Wrong("sqlite:///path/to/history.db, postgresql://user:password@host/database, or off")
    return text.replace("postgres://", "postgresql://", 1)


def _replicas(text: str) -> int:
    if text not in ("1", "2", "3", "4", "5"):
        raise _Wrong("a number of copies from 1 to 5 (3 or 5 for a cluster)")
    return int(text)


def _log_level(text: str) -> str:
    level = "warning" if text.lower() == "warn" else text.lower()
    if level not in LOG_LEVELS:
        raise _Wrong(f"one of {', '.join(LOG_LEVELS)}")
    return level


def _url(text: str) -> str:
    scheme, separator, rest = text.partition("://")
    if scheme.lower() not in ("http", "https") or not separator or not rest.strip("/") or any(map(str.isspace, text)):
        raise _Wrong("a URL that begins with http:// or https://")
    return text.rstrip("/")


def _nats_url(text: str) -> str:
    for part in text.split(","):
        scheme, separator, rest = part.strip().partition("://")
        if separator and (scheme not in ("nats", "tls", "ws", "wss") or not rest):
            raise _Wrong("nats://host:port or tls://host:port, or several with commas between")
        if not part.strip() or any(map(str.isspace, part.strip())):
            raise _Wrong("nats://host:port or tls://host:port, or several with commas between")
    return text


def _host(text: str) -> str:
    if any(map(str.isspace, text)) or "/" in text:
        raise _Wrong("an address or a host name, such as 127.0.0.1 or 0.0.0.0")
    return text


def _networks(text: str) -> tuple[Network, ...]:
    try:
        return tuple(ipaddress.ip_network(part.strip()) for part in text.split(","))
    except ValueError as error:
        raise _Wrong("networks such as 10.1.0.0/16 or fd00::/8, with commas between") from error


def _auth(text: str) -> str:
    if text.lower() not in AUTH:
        raise _Wrong(f"one of {', '.join(AUTH)}")
    return text.lower()


def _key_secret(text: str) -> SecretStr:
    if any(len(part.strip()) < LEAST_SECRET for part in text.split(",")):
        raise _Wrong(f"a secret of {LEAST_SECRET} characters or more (openssl rand -hex 32), or several with commas")
    return SecretStr(text)


def _algorithms(text: str) -> tuple[str, ...]:
    found = tuple(part.strip() for part in text.split(","))
    if any(part not in ALGORITHMS for part in found):
        raise _Wrong(f"some of {', '.join(ALGORITHMS)}: with any other a token could be made by who only checks it")
    return found


def _secrets(text: str) -> Mapping[str, tuple[bytes, ...]]:
    found: dict[str, tuple[bytes, ...]] = {}
    for entry in filter(None, map(str.strip, text.split(","))):
        tenant, _, secrets = entry.partition("=")
        try:
            read = tuple(base64.b64decode(one.removeprefix("whsec_"), validate=True) for one in secrets.split())
        except ValueError:
            read = ()
        known = is_token(tenant.strip())
        if not known or not read or any(not 24 <= len(one) <= 64 for one in read):
            raise _Wrong(
                "tenant=whsec_…, several secrets of a tenant with spaces between, tenants with commas; a secret is 24 "
                "to 64 random bytes in base64 (`segue callback-secret` makes one)"
            )
        found[tenant.strip()] = read
    return found


def _tenants(text: str) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for entry in filter(None, map(str.strip, text.split(","))):
        tenant, _, password = entry.partition("=")
        known = is_token(tenant)
        if not known or re.fullmatch(r"[!-~]{8,200}", password) is None or tenant in found:
            raise _Wrong("tenant=password, each tenant once, with commas between; a password has 8 or more characters")
        found[tenant] = password
    return found


def _key(text: str) -> SecretStr:
    if any(map(str.isspace, text)) or not text.isascii():
        raise _Wrong("a key without spaces, in plain ASCII")
    return SecretStr(text)
