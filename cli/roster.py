"""Who has to run, on which ports, and with what in its environment. Pure but for asking the kernel for free ports."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cli.nursery.order import Order
from cli.ports import Wanted, complaints, first_free, instead
from shared.config import Configuration
from shared.config.environment import Environment

SERVICES = ("categorizer", "planner", "executor", "finisher")
FIRST_HEALTH_PORT = 9101
MOST_COPIES = 64
LOOPBACK = "127.0.0.1"
"""Where the embedded nats-server and the simulator listen, whatever the gateway does."""


class PortsTaken(Exception):
    """Ports that are needed are taken; the message names each and what to set."""

    def __init__(self, lines: list[str], settings: str) -> None:
        super().__init__("\n  ".join([*lines, *([f"for example: {settings} ./start.sh"] if settings else [])]))


@dataclass(frozen=True, slots=True)
class Options:
    """What `segue up` was asked for on its command line."""

    simulator: bool = True
    profile: str = "fast"
    show_logs: bool = False
    copies: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Member:
    """One process of the system. `port` answers /readyz; None: nobody asks it."""

    name: str
    order: Order
    log: Path
    port: int | None


@dataclass(frozen=True, slots=True)
class Roster:
    """The system's processes beside the nats-server."""

    simulated: bool
    """Whether a simulator of our own answers."""
    simulator: tuple[Member, ...]
    services: tuple[Member, ...]
    gateway: Member

    @property
    def members(self) -> tuple[Member, ...]:
        return (*self.simulator, *self.services, self.gateway)


def needs_simulator(environment: Environment, configuration: Configuration) -> bool:
    """Whether no provider of text is configured in any way."""
    return (
        environment.openrouter_api_key is None
        and environment.openai_base_url is None
        and environment.simulator_url is None
        and configuration.api_keys.openrouter is None
    )


def check_ports(environment: Environment, *, simulated: bool) -> None:
    """Raises `PortsTaken` before anything is started."""
    wanted = [Wanted(environment.host, environment.port, "gateway", "PORT")]
    if not environment.nats_url_given:
        wanted.append(Wanted(LOOPBACK, environment.nats_port, "nats-server", "SEGUE_NATS_PORT"))
    if simulated:
        wanted.append(Wanted(LOOPBACK, environment.simulator_port, "simulator", "SEGUE_SIMULATOR_PORT"))
    if taken := complaints(wanted):
        raise PortsTaken(taken, instead(wanted))


def muster(
    environment: Environment,
    options: Options,
    variables: Mapping[str, str],
    nats_url: str,
    *,
    simulated: bool,
    own_urls: Mapping[str, str] | None = None,
) -> Roster:
    """Return who has to run. `variables` is the environment that each gets its additions to; `own_urls`: by service,
    where it finds the bus as the user that it is."""
    shared_by_all = {**variables, "SEGUE_NATS_URL": nats_url, "PYTHONUNBUFFERED": "1"}
    if simulated:
        shared_by_all["SEGUE_SIMULATOR_URL"] = f"http://{LOOPBACK}:{environment.simulator_port}/api/v1"
    logs = environment.data_dir / "logs"

    def member(name: str, module: str, port: int | None, *arguments: str, **own: str) -> Member:
        return Member(name, Order(module, arguments, {**shared_by_all, **own}), logs / f"{name}.log", port)

    def url_for(service: str) -> dict[str, str]:
        return {"SEGUE_NATS_URL": own_urls[service]} if own_urls else {}

    simulator = (
        member("simulator", "simulator", None, "--port", str(environment.simulator_port), "--profile", options.profile),
    )
    taken = {environment.port, environment.nats_port, environment.simulator_port}
    services = []
    for name, service in _copies(options.copies):
        port = first_free(environment.host, FIRST_HEALTH_PORT, taken)
        taken.add(port)
        services.append(member(name, f"services.{service}", port, SEGUE_HEALTH_PORT=str(port), **url_for(service)))
    gateway = member("gateway", "services.gateway", environment.port, PORT=str(environment.port), **url_for("gateway"))
    return Roster(simulated, simulator if simulated else (), tuple(services), gateway)


def _copies(copies: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """Yield (name, service): the first copy has the service's own name."""
    for service in SERVICES:
        for number in range(1, copies.get(service, 1) + 1):
            yield (service if number == 1 else f"{service}-{number}"), service


def read_copies(given: list[str]) -> dict[str, int]:
    """Read `executor=3` and the like. Raises `ValueError` with what is expected."""
    found = {}
    for entry in given:
        name, _, count = entry.partition("=")
        if name not in SERVICES or not count.isdecimal() or not 1 <= int(count[:3]) <= MOST_COPIES:
            raise ValueError(f"{entry!r} is not SERVICE=NUMBER with one of {', '.join(SERVICES)} and 1-{MOST_COPIES}")
        found[name] = int(count)
    return found
