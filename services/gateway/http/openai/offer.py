"""What can be asked for by OpenAI's `model`: us, a role, a template. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from services.gateway.listings import Listings, OfferedModel
from services.gateway.principal import Principal
from shared.contracts.ids import Lane
from shared.contracts.workflow import Queue
from shared.workflows.problems import roles_of, templates_in

AUTO: Final = "segue-auto"
TEMPLATE: Final = "template/"
_AUTO_DOES: Final = "Decides what a request needs: one model, or several together."
CREATED: Final = 1_795_910_400
"""2026-11-29: models have a birthday at OpenAI's, and ours must be the same wherever it is asked."""


class Template(Protocol):
    """What is looked at of a template."""

    @property
    def description(self) -> str: ...
    @property
    def workflow(self) -> Sequence[Queue]: ...


@dataclass(frozen=True, slots=True)
class Auto:
    """The whole system: categorised, planned where that helps."""


@dataclass(frozen=True, slots=True)
class Role:
    model: OfferedModel


@dataclass(frozen=True, slots=True)
class Named:
    """A template, which may be there or not."""

    template: str


def wanted(model: str, listings: Listings) -> Auto | Role | Named | None:
    """Return what a caller means; None for what there is not."""
    if model in (AUTO, f"segue/{AUTO}"):
        return Auto()
    if model.startswith(TEMPLATE):
        return Named(model.removeprefix(TEMPLATE))
    found = next((one for one in listings.models if one.name == model), None)
    return None if found is None else Role(found)


def listed(listings: Listings, templates: Mapping[str, Template], asks: Principal) -> list[dict[str, Any]]:
    """Return every model that somebody may ask; `templates` by name, all that there are."""
    return [
        *([model(AUTO, "segue", purpose=_AUTO_DOES)] if may_write(listings, asks) else []),
        *(_role(one) for one in allowed(listings, asks)),
        *(
            model(f"{TEMPLATE}{name}", "segue", purpose=template.description)
            for name, template in templates.items()
            if not asks.refused(roles_behind(name, templates))
        ),
    ]


def allowed(listings: Listings, asks: Principal) -> list[OfferedModel]:
    """Return the roles that somebody may ask."""
    refused = asks.refused(one.name for one in listings.models)
    return [one for one in listings.models if one.name not in refused]


def may_write(listings: Listings, asks: Principal) -> bool:
    """Whether somebody may ask any role that writes text: without one the whole system has nobody to answer with."""
    return any(one.lane is Lane.TEXT for one in allowed(listings, asks))


def roles_behind(name: str, templates: Mapping[str, Template]) -> frozenset[str]:
    """Return the roles that a template's tasks name, and those of the templates that stand in it, and so on."""
    seen, waiting, roles = set[str](), {name}, frozenset[str]()
    while waiting:
        one = waiting.pop()
        seen.add(one)
        if one in templates:
            workflow = templates[one].workflow
            roles |= roles_of(workflow)
            waiting |= templates_in(workflow) - seen
    return roles


def model(name: str, owner: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": CREATED, "owned_by": owner, "segue": more}


def _role(one: OfferedModel) -> dict[str, Any]:
    return model(
        one.name,
        one.provider,
        purpose=one.purpose,
        model=one.model,
        available=one.available,
        simulated=one.simulated,
        makes=one.lane,
    )


def simulated(models: Iterable[OfferedModel], role: str | None) -> bool:
    """Whether an answer will be simulated, as far as that is known before: by its role, else by any that writes."""
    return any(one.simulated for one in models if one.name == role or (role is None and one.lane is Lane.TEXT))
