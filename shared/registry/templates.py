"""Templates: the configuration file's, and those that were written over them or beside them at run time."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

from pydantic import JsonValue, ValidationError

from shared.bus.buckets import Bucket
from shared.config.templates import Template
from shared.contracts.ids import is_token
from shared.contracts.registry import TemplateVersion
from shared.workflows.problems import templates_in
from shared.workflows.validation import Catalogue, Invalid, Problem, json_path, validate

MOST: Final = 500
"""Templates of one tenant in the registry."""


@dataclass(frozen=True, slots=True)
class Offered:
    """A template that can be run."""

    name: str
    template: Template
    source: Literal["file", "registry"]
    version: int | None = None
    """None: the file's, which has no versions here."""
    written_at: datetime | None = None
    by: str | None = None


class VersionMismatch(Exception):
    """Somebody else wrote it meanwhile, or it is there already; `version` is its current one, 0: none."""

    def __init__(self, name: str, version: int, what: str = "template") -> None:
        there = f"is at version {version}" if version else "is not in the registry"
        super().__init__(f"{what} {name!r} {there}: read it again, then write on top of that")
        self.version = version


class TooManyTemplates(Exception):
    """The tenant's places for templates are taken."""

    def __init__(self) -> None:
        super().__init__(f"there are {MOST} templates in the registry already; delete one first")


MOST_BYTES: Final = 200_000
"""Of a template's document: a larger one would travel by reference, and objects age with the log."""


class BadTemplate(Exception):
    """A document is no template that can run."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("; ".join(f"{one.path}: {one.message}" for one in problems))
        self.problems = problems


def read_template(document: Mapping[str, JsonValue], catalogue: Catalogue) -> Template:
    """Return a document as a template. Raises `BadTemplate` with everything that is wrong.

    `catalogue` has the templates that its tasks stand for.
    """
    if (size := len(json.dumps(document))) > MOST_BYTES:
        said = f"a template of {size:,} bytes; at most {MOST_BYTES:,} are kept: give what is long as a variable"
        raise BadTemplate((Problem("$", "too_large", said),))
    try:
        template = Template.read(dict(document))
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        raise BadTemplate(
            tuple(Problem(json_path(one["loc"]), str(one["type"]), one["msg"]) for one in found)
        ) from error
    placeholders: dict[str, JsonValue] = {name: _example(template, name) for name in template.variables}
    queues: list[JsonValue] = [queue.model_dump(mode="json", exclude_none=True) for queue in template.workflow]
    checked = validate({"workflow": queues, "variables": placeholders}, catalogue)
    if isinstance(checked, Invalid):
        raise BadTemplate(checked.problems)
    return template


def _example(template: Template, name: str) -> JsonValue:
    parameter = template.variables[name]
    examples: dict[str, JsonValue] = {"number": 0, "integer": 0, "boolean": False, "array": [], "object": {}}
    return examples.get(parameter.type, "") if parameter.required else parameter.default


@dataclass(frozen=True, slots=True)
class TemplateBook:
    """Every template that a tenant can run."""

    bucket: Bucket
    shipped: Mapping[str, Template]
    """The configuration file's."""

    async def get(self, tenant: str, name: str, version: int | None = None) -> Offered | None:
        """Return a template as it is now, or as an earlier version that is still kept."""
        if not is_token(name):
            return self.from_file(name)  # the registry has no such names, and the bus would refuse to be asked for one
        if version is not None:
            kept = await self.versions(tenant, name)
            return next((_offered(one) for one in kept if one.version == version and one.document is not None), None)
        record, _ = await self.bucket.get(_key(tenant, name), TemplateVersion)
        if record is not None and record.document is not None:
            return _offered(record)
        return self.from_file(name)

    def from_file(self, name: str) -> Offered | None:
        """Return what the configuration file has by a name."""
        template = self.shipped.get(name)
        return Offered(name, template, "file") if template is not None else None

    async def all(self, tenant: str) -> dict[str, Offered]:
        """Return every template by name: for listings."""
        found = {name: Offered(name, template, "file") for name, template in self.shipped.items()}
        for record in (await self.bucket.every(f"template.{tenant}", TemplateVersion)).values():
            if record.document is not None:
                found[record.name] = _offered(record)
        return dict(sorted(found.items()))

    async def closure(self, tenant: str, names: Iterable[str]) -> dict[str, Template]:
        """Return templates with those that their tasks stand for, and so on; what is unknown is left out."""
        found: dict[str, Template] = {}
        waiting = set(names)
        while waiting:
            name = waiting.pop()
            offered = await self.get(tenant, name)
            if offered is not None:
                found[name] = offered.template
                waiting |= templates_in(offered.template.workflow) - found.keys()
        return found

    async def write(
        self, tenant: str, name: str, document: Mapping[str, JsonValue], *, expected: int | None, by: str
    ) -> Offered:
        """Write a template's next version; `expected`: only on top of that one (0: only where there is none).

        The document was read by `read_template`. Raises `VersionMismatch`, `TooManyTemplates`.
        """
        return _offered(await self._put(tenant, name, dict(document), expected=expected, by=by))

    async def delete(self, tenant: str, name: str, *, expected: int | None, by: str) -> Offered | None:
        """Delete a template from the registry; returns what the file has by this name. Raises `VersionMismatch`."""
        await self._put(tenant, name, None, expected=expected, by=by)
        return self.from_file(name)

    async def _put(
        self, tenant: str, name: str, document: dict[str, JsonValue] | None, *, expected: int | None, by: str
    ) -> TemplateVersion:
        key = _key(tenant, name)
        while True:
            record, revision = await self.bucket.readable(key, TemplateVersion)
            there = 0 if record is None or record.document is None else record.version
            if expected is not None and expected != there:
                raise VersionMismatch(name, there)
            if document is not None and there == 0 and len(await self._own(tenant)) >= MOST:
                raise TooManyTemplates
            written = TemplateVersion(
                tenant=tenant,
                name=name,
                version=(record.version if record is not None else revision) + 1,
                document=document,
                written_at=datetime.now(UTC),
                by=by,
            )
            if await self.bucket.put(key, written, revision) is not None:
                return written

    async def _own(self, tenant: str) -> list[TemplateVersion]:
        records = await self.bucket.every(f"template.{tenant}", TemplateVersion)
        return [record for record in records.values() if record.document is not None]

    async def versions(self, tenant: str, name: str) -> list[TemplateVersion]:
        """Return what is kept of a template's versions, oldest first."""
        return await self.bucket.versions(_key(tenant, name), TemplateVersion)


def _key(tenant: str, name: str) -> str:
    return f"template.{tenant}.{name}"


def _offered(record: TemplateVersion) -> Offered:
    assert record.document is not None
    template = Template.read(record.document)
    return Offered(record.name, template, "registry", record.version, record.written_at, record.by)
