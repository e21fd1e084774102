"""Models and providers as they are now: the configuration file's, and what was written over it at run time. (ADR 0017)

The reading half is pure: `merged` says what a file and the entries come to, `read_model` and `read_provider` what a
document is. `ModelBook` writes entries, one compare-and-set each.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, TypeVar

from pydantic import JsonValue, ValidationError

from shared.bus.buckets import Bucket
from shared.config.configuration import Configuration
from shared.config.keys import Notes, read
from shared.config.providers import KEY_VARIABLES
from shared.config.roles import BUILT_IN, DEFAULT_VARIANT, BasePrompt, Model, Provider
from shared.contracts.message import Unreadable
from shared.contracts.registry import ModelEntry, NamesFreed, ProviderEntry
from shared.registry.templates import VersionMismatch
from shared.workflows.problems import Problem, hint
from shared.workflows.validation import json_path

MODELS: Final = "model"
PROVIDERS: Final = "provider"
MOST: Final = 1_000
"""Roles, and providers, that the registry has."""
MOST_BYTES: Final = 64_000
"""Of one entry's document."""

OURS: Final = "SEGUE_"
"""How the variables begin that no provider is ever sent."""

E = TypeVar("E", ModelEntry, ProviderEntry)


def freed_key(what: str) -> str:
    """Return where the registry says which names of a kind have no place any more."""
    return f"freed.{what}"


class BadModel(Exception):
    """A document is no model, or no provider, that could be asked."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(f"{one.path}: {one.message}" for one in self.problems))


class TooManyEntries(Exception):
    """The registry's places are taken."""

    def __init__(self, what: str) -> None:
        super().__init__(f"there are {MOST} {what}s in the registry already; delete one first")


@dataclass(frozen=True, slots=True)
class Overlay:
    """What was written over the configuration file, by name."""

    models: Mapping[str, ModelEntry]
    providers: Mapping[str, ProviderEntry]


def merged(file: Configuration, overlay: Overlay) -> Configuration:
    """Return the configuration as it is now. An entry that this build cannot read leaves the file's as it is."""
    models, providers = dict(file.ai_models), dict(file.providers)
    fallbacks, prompts = dict(file.model_fallbacks), dict(file.base_ai_prompts)
    for name, given in overlay.providers.items():
        provider = _read_or(providers.get(name), given.document, Provider)
        if provider is not None:
            providers[name] = provider.model_copy(update={"disabled": given.disabled or provider.disabled})
    for role, entry in overlay.models.items():
        model = _read_or(models.get(role), entry.document, Model)
        if model is None:
            continue
        models[role] = model.model_copy(update={"disabled": entry.disabled or model.disabled})
        if entry.fallbacks is not None:
            fallbacks[role] = entry.fallbacks
        if entry.system_prompt is not None:
            prompts[role] = BasePrompt(system_prompt=entry.system_prompt)
    changed = {
        "ai_models": models, "providers": providers, "model_fallbacks": fallbacks, "base_ai_prompts": prompts,
    }  # fmt: skip
    return file.model_copy(update=changed)


S = TypeVar("S", Model, Provider)


def _read_or(there: S | None, document: Mapping[str, JsonValue] | None, kind: type[S]) -> S | None:
    if document is None:
        return there
    try:
        return kind.model_validate_json(json.dumps(document))
    except ValidationError:
        return there


def read_model(
    role: str, document: Mapping[str, JsonValue], fallbacks: Iterable[str], now: Configuration
) -> dict[str, JsonValue]:
    """Return a role's document with its keys as they are named, ready to be kept. Raises `BadModel`."""
    model, kept = _read(document, Model)
    problems = []
    known = (*BUILT_IN, *now.providers)
    asked = [("$.provider", model.provider)]
    for name, variant in model.variants.items():
        if name == DEFAULT_VARIANT:
            message = f"{name!r} is the role's own model: choose another name"
            problems.append(Problem(f"$.variants.{name}", "bad_name", message))
        if variant.provider is not None:
            asked.append((f"$.variants.{name}.provider", variant.provider))
    for path, provider in asked:
        if provider not in known:
            problems.append(
                Problem(path, "unknown_provider", f"unknown provider {provider!r}; {hint(provider, known)}")
            )
    if not model.weight and not any(variant.weight for variant in model.variants.values()):
        problems.append(Problem("$.weight", "no_weight", "nobody would be asked: every weight is 0"))
    for index, other in enumerate(fallbacks):
        path = f"$.fallbacks[{index}]"
        if other == role:
            problems.append(Problem(path, "circular_fallback", "a role does not stand in for itself"))
        elif other not in now.ai_models:
            problems.append(Problem(path, "unknown_role", f"unknown role {other!r}; {hint(other, now.ai_models)}"))
    if problems:
        raise BadModel(problems)
    return kept


def read_provider(name: str, document: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return a provider's document with its keys as they are named, ready to be kept. Raises `BadModel`."""
    if name in (*BUILT_IN, "simulator"):
        raise BadModel([Problem("$", "built_in", f"provider {name!r} is built in: choose another name")])
    found, kept = _read(document, Provider)
    if ours := [one for one in found.api_key_env if one.startswith(OURS) or one in KEY_VARIABLES.values()]:
        message = f"{ours[0]} is no key of this provider's, and would be sent to it: name a variable of its own"
        raise BadModel([Problem("$.api_key_env", "not_its_key", message)])
    return kept


def _read(document: Mapping[str, JsonValue], kind: type[S]) -> tuple[S, dict[str, JsonValue]]:
    if (size := len(json.dumps(document))) > MOST_BYTES:
        raise BadModel([Problem("$", "too_large", f"{size:,} bytes; at most {MOST_BYTES:,} are kept")])
    notes = Notes()
    kept = read(kind, dict(document), (), notes)
    assert isinstance(kept, dict)
    problems = [Problem(one.path, "unknown_key", f"expected {one.expected}") for one in notes.problems]
    problems += [Problem("$", "unknown_key", warning) for warning in notes.warnings if "left out" in warning]
    try:
        found = kind.model_validate_json(json.dumps(kept))
    except ValidationError as error:
        items = error.errors(include_url=False, include_input=False, include_context=False)
        problems += [Problem(json_path(one["loc"]), str(one["type"]), one["msg"]) for one in items]
        raise BadModel(problems) from error
    if problems:
        raise BadModel(problems)
    return found, kept


def _above(there: NamesFreed | None, version: int) -> NamesFreed | None:
    return NamesFreed(version=version) if there is None or there.version < version else None


def _left_out(_: str, __: Unreadable) -> None:
    """Do not count an entry that cannot be read; whoever follows the registry says so."""


@dataclass(frozen=True, slots=True)
class ModelBook:
    """Writes what holds over the configuration file."""

    bucket: Bucket

    async def write_model(
        self, role: str, changes: Mapping[str, object], *, expected: int | None, by: str
    ) -> ModelEntry:
        """Write a role's next version: fields that `changes` does not name stay. One that is unreadable counts as none.

        Raises `VersionMismatch`, `TooManyEntries`.
        """
        return await self._write(MODELS, role, {"role": role, **changes}, ModelEntry, expected, by)

    async def write_provider(
        self, name: str, changes: Mapping[str, object], *, expected: int | None, by: str
    ) -> ProviderEntry:
        """Write a provider's next version. Raises `VersionMismatch`, `TooManyEntries`."""
        return await self._write(PROVIDERS, name, {"name": name, **changes}, ProviderEntry, expected, by)

    async def _write(
        self, what: str, name: str, changes: Mapping[str, object], kind: type[E], expected: int | None, by: str
    ) -> E:
        key = f"{what}.{name}"
        while True:
            record, revision = await self.bucket.readable(key, kind)
            there = 0 if record is None or record.empty else record.version
            if expected is not None and expected != there:
                raise VersionMismatch(name, there, what)
            last = record.version if record is not None else revision  # which no version of a name is higher than
            if not last:
                last = await self._place(what, kind)
            fields = record.model_dump() if record is not None else {}
            fields |= {**changes, "version": last + 1, "written_at": datetime.now(UTC), "by": by}
            written = kind.model_validate(fields)
            if await self.bucket.put(key, written, revision) is not None:
                return written

    async def _place(self, what: str, kind: type[E]) -> int:
        """Return the version that a new name begins above. With every place taken, those of deleted names are freed."""
        there = await self.bucket.entries(what, kind, unreadable=_left_out)
        if len(there) >= MOST:
            spent = {key: one for key, one in there.items() if one[0].empty}
            if len(there) - len(spent) >= MOST:
                raise TooManyEntries(what)
            highest = max(entry.version for entry, _ in spent.values())
            await self.bucket.update(freed_key(what), NamesFreed, lambda freed: _above(freed, highest))
            for key, (_, revision) in spent.items():
                await self.bucket.forget(key, revision=revision)
        freed, _ = await self.bucket.readable(freed_key(what), NamesFreed)
        return freed.version if freed is not None else 0
