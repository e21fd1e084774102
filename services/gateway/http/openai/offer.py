"""What can be asked for by OpenAI's `model`: us, a role, a template. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from services.gateway.listings import Listings, OfferedModel
from shared.contracts.ids import Lane

AUTO: Final = "segue-auto"
TEMPLATE: Final = "template/"
CREATED: Final = 1_795_910_400
"""2026-11-29: models have a birthday at OpenAI's, and ours must be the same wherever it is asked."""


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


def listed(listings: Listings, templates: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return every model; `templates`: their descriptions by name."""
    return [
        model(AUTO, "segue", purpose="Decides what a request needs: one model, or several together."),
        *(_role(one) for one in listings.models),
        *(model(f"{TEMPLATE}{name}", "segue", purpose=said) for name, said in templates.items()),
    ]


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
