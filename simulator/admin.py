"""The API under `/__sim/`: faults, latency, ledger. What it is sent is validated, and named when wrong."""

import json
import os
import time
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qs

from pydantic import TypeAdapter, ValidationError

from simulator.exchange import JSON, Exchange, Gone, TooLarge
from simulator.faults import Rule
from simulator.latency import PROFILES, Profile
from simulator.simulation import Simulation

PREFIX: Final = "/__sim/"
LARGEST_SCRIPT_BYTES: Final = 4 * 1024 * 1024

_RULES: Final = TypeAdapter(list[Rule])


class Wrong(Exception):
    """What was asked of the simulator cannot be done; the message says what to change."""

    def __init__(self, message: str, status: int = 422) -> None:
        super().__init__(message)
        self.status = status


class Admin:
    """Answers requests under `/__sim/`."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self._first_profile = simulation.profile_name

    @staticmethod
    def handles(path: str) -> bool:
        return path.startswith(PREFIX)

    async def handle(self, exchange: Exchange, path: str) -> None:
        try:
            body = await exchange.body(LARGEST_SCRIPT_BYTES)
            answer = self._answer(exchange.method, path.removeprefix(PREFIX), body, exchange.query)
        except Gone:
            return
        except TooLarge:
            status, told = 413, {"detail": f"at most {LARGEST_SCRIPT_BYTES} bytes"}
        except Wrong as wrong:
            status, told = wrong.status, {"detail": str(wrong)}
        else:
            status, told = 200, answer
        await exchange.respond(status, json.dumps(told).encode(), JSON)

    def _answer(self, method: str, what: str, body: bytes, query: bytes) -> dict[str, Any]:
        simulation = self.simulation
        match method, what:
            case "POST", "faults":
                simulation.script.add(_rules(_document(body)))
            case "DELETE", "faults":
                simulation.script.clear()
            case "GET", "faults":
                pass
            case "POST", "profile":
                simulation.use(*_profile(_document(body)))
                return self._shown_profile()
            case "GET", "profile":
                return self._shown_profile()
            case "GET", "ledger":
                return simulation.ledger.shown(**_selection(query))
            case "DELETE", "ledger":
                simulation.ledger.clear()
                return simulation.ledger.shown()
            case "GET", "process":
                return {"pid": os.getpid(), "cpu_s": time.process_time()}
            case "POST", "reset":
                simulation.reset(self._first_profile)
                return self._shown_profile()
            case _:
                known = (
                    "faults (GET, POST, DELETE), profile (GET, POST), ledger (GET, DELETE), process (GET), reset (POST)"
                )
                raise Wrong(f"nothing at {method} {PREFIX}{what}; known: {known}", 404)
        return {"faults": [scheduled.shown() for scheduled in simulation.script.scheduled]}

    def _shown_profile(self) -> dict[str, Any]:
        return {"name": self.simulation.profile_name, **self.simulation.profile.model_dump(mode="json")}


def _document(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError as error:
        raise Wrong(f"the body is not JSON: {error}") from error


def _rules(document: Any) -> list[Rule]:
    """Read a list of rules, `{"faults": [...]}`, or one rule."""
    if isinstance(document, Mapping):
        document = document.get("faults", [document])
    try:
        return _RULES.validate_python(document)
    except ValidationError as error:
        raise Wrong(_told(error)) from error


def _profile(document: Any) -> tuple[Profile, str]:
    """Read a profile: its name, as a string or under `name`, with whatever is to be different from it."""
    given: dict[str, Any] = {"name": document} if isinstance(document, str) else document
    if not isinstance(given, dict):
        raise Wrong('a profile is a name or an object, for example {"name": "fast"} or {"first_token_ms": 50}')
    name = given.get("name", "zero")
    if name not in PROFILES:
        raise Wrong(f"unknown profile {name!r}; known: {', '.join(sorted(PROFILES))}")
    changes = {key: value for key, value in given.items() if key != "name"}
    if not changes:
        return PROFILES[name], name
    try:
        return Profile.model_validate({**PROFILES[name].model_dump(), **changes}), "custom"
    except ValidationError as error:
        raise Wrong(_told(error)) from error


def _selection(query: bytes) -> dict[str, Any]:
    given = {name: values[-1] for name, values in parse_qs(query.decode("latin-1")).items()}
    unknown = given.keys() - {"last", "run"}
    last = given.get("last")
    if unknown or (last is not None and not last.isdecimal()):
        raise Wrong("the ledger takes ?last=<number of entries> and ?run=<run id>")
    return {"last": None if last is None else int(last), "run": given.get("run")}


def _told(error: ValidationError) -> str:
    items = error.errors(include_url=False, include_input=False, include_context=False)
    return "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in items[:10])
