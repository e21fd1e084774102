"""What this system offers its callers: models, addons, templates, limits. Values, made from the configuration once."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from shared.config.operation import WorkflowLimits
from shared.config.templates import Template
from shared.contracts.ids import Lane
from shared.workflows.validation import Catalogue


@dataclass(frozen=True, slots=True)
class OfferedModel:
    """A role and what stands behind it."""

    name: str
    provider: str
    model: str
    purpose: str
    available: bool = True
    """Somebody can be asked: a provider with a key, a server of the operator's, or the simulator."""
    simulated: bool = False
    lane: Lane = Lane.TEXT
    max_tokens: int | None = None
    """Of an answer, at the most."""
    instruction_tokens: int = 0
    """Of what the role is told before each task."""


@dataclass(frozen=True, slots=True)
class Listings:
    """Everything that is offered."""

    name: str
    version: str
    models: tuple[OfferedModel, ...]
    addons: tuple[str, ...]
    templates: Mapping[str, Template]
    timeout_s: float
    """From a run's birth to its deadline."""
    artifact_days: float = 7
    """For how long images and videos are kept."""
    limits: WorkflowLimits = field(default_factory=WorkflowLimits)

    @property
    def models_available(self) -> int:
        return sum(1 for model in self.models if model.available)

    def catalogue(self) -> Catalogue:
        """Return what a workflow may name, but for templates."""
        return Catalogue(
            frozenset(model.name for model in self.models),
            frozenset(self.addons),
            self.limits.max_tasks,
            self.limits.max_depth,
            self.limits.max_fan_out,
            self.limits.max_task_s,
        )
