"""The whole of `orchestration_config.json`."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, StringConstraints

from shared.config.callbacks import CallbackRules
from shared.config.flow import RequestFlow
from shared.config.operation import ApiEndpoints, ApiKeys, Orchestration, Queuing, Scaling, System
from shared.config.reliability import ErrorHandling, Monitoring, RateLimit
from shared.config.roles import BasePrompt, Model, Provider
from shared.config.section import Section
from shared.config.templates import Template


def _rate_limits() -> Mapping[str, RateLimit]:
    return {
        "openrouter": RateLimit(requests_per_minute=60, tokens_per_minute=500_000, burst_allowance=10),
        "google_ai": RateLimit(requests_per_minute=60, requests_per_day=1500),
    }


class Configuration(Section):
    """Every setting of the system. Only `ai_models` has to be there; the rest has defaults."""

    system: System = Field(default_factory=System, description="What this installation calls itself.")
    api_keys: ApiKeys = Field(default_factory=ApiKeys, description="Keys of the providers; better in the environment.")
    api_endpoints: ApiEndpoints = Field(default_factory=ApiEndpoints, description="Where the providers are.")
    orchestration: Orchestration = Field(
        default_factory=Orchestration, description="How much runs at once, and for how long."
    )
    queuing: Queuing = Field(default_factory=Queuing, description="How waiting requests share the places.")
    callbacks: CallbackRules = Field(
        default_factory=CallbackRules, description="How answers are POSTed to callback URLs."
    )
    scaling: Scaling = Field(default_factory=Scaling, description="Between how many copies an autoscaler moves.")
    providers: Mapping[Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,39}$")], Provider] = Field(
        default_factory=dict, description="Servers beside the built-in ones, by the name that ai_models call them."
    )
    ai_models: Mapping[str, Model] = Field(min_length=1, description="Who plays each role, by the role's name.")
    base_ai_prompts: Mapping[str, BasePrompt] = Field(
        default_factory=dict,
        description="What each role is told, by its name; `master_ai` is what the planning role is told when it plans.",
    )
    prompt_addons: Mapping[str, str] = Field(
        default_factory=dict, description="Instructions that a task can add to its role's prompt, by name."
    )
    request_flow: RequestFlow = Field(
        default_factory=RequestFlow, description="From the chat's opening to the category."
    )
    workflow_templates: Mapping[str, Template] = Field(default_factory=dict, description="Workflows to be run by name.")
    model_fallbacks: Mapping[str, tuple[str, ...]] = Field(
        default_factory=dict, description="Roles that are asked instead, in this order, when a role's model fails."
    )
    error_handling: ErrorHandling = Field(
        default_factory=ErrorHandling, description="What is done when something fails."
    )
    rate_limiting: Mapping[str, RateLimit] = Field(
        default_factory=_rate_limits,
        description="How much each provider may be asked: openrouter, google_ai, openai_compatible, simulator, or one "
        "of providers.",
    )
    monitoring: Monitoring = Field(default_factory=Monitoring, description="How the system is watched.")

    @property
    def log_level(self) -> str:
        """How much is logged when SEGUE_LOG_LEVEL is not set: `monitoring.logging.level`, else `system.logLevel`."""
        return self.monitoring.logging.level or self.system.log_level
