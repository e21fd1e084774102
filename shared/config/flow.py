"""`request_flow`: what happens to a request before and by its category."""

from collections.abc import Mapping
from typing import Self

from pydantic import Field, model_validator

from shared.config.section import Section
from shared.contracts.ids import Category


class Warmup(Section):
    """Models that are asked for a word before a person has finished typing."""

    enabled: bool = Field(default=True, description="Whether models are warmed up.")
    models: tuple[str, ...] = Field(default=("categorizer_ai", "fast_ai"), description="The roles that are warmed up.")
    trigger: str = Field(default="chatbox_open", description="What sets it off.")


class ImageDetection(Section):
    """A request with an image goes to a model that sees, without a category being asked for."""

    enabled: bool = Field(default=True, description="Whether requests with images are told apart.")
    force_model: str = Field(default="image_model", description="The role that answers them.")
    condition: str = Field(default="contains_image", description="What sets it off.")


class ContextLimits(Section):
    """Lengths at which the category no longer decides. Context is the request with its session."""

    force_thinking_ai: int = Field(
        default=100_000, ge=1, description="Tokens of context above which the L model answers."
    )
    force_gemini_pro: int = Field(
        default=200_000, ge=1, description="Tokens of context above which the long-context model answers."
    )
    deny_request: int = Field(
        default=900_000, ge=1, description="Tokens of context above which a request is refused (413)."
    )
    long_context_model: str = Field(
        default="image_analysis_ai", description="The role of the long-context model that `force_gemini_pro` means."
    )

    @model_validator(mode="after")
    def _ascends(self) -> Self:
        if not self.force_thinking_ai < self.force_gemini_pro < self.deny_request:
            given = f"{self.force_thinking_ai}, {self.force_gemini_pro} and {self.deny_request}"
            raise ValueError(f"force_thinking_ai < force_gemini_pro < deny_request, not {given}")
        return self


class CategoryRule(Section):
    """Who deals with the requests of a category."""

    model: str = Field(description="The role that answers; for H the role that plans.")
    description: str = Field(default="", description="What the category is, in words.")
    orchestration: bool = Field(default=False, description="Whether the model plans a workflow instead of answering.")
    fast_response_model: str | None = Field(
        default=None, description="The role that acknowledges at once; H without one: thinking_fast_response_ai."
    )


def _categories() -> Mapping[Category, CategoryRule]:
    return {
        Category.L: CategoryRule(model="thinking_ai"),
        Category.M: CategoryRule(model="medium_ai"),
        Category.H: CategoryRule(
            model="thinking_ai", orchestration=True, fast_response_model="thinking_fast_response_ai"
        ),
    }


class RequestFlow(Section):
    """From the chat's opening to the category."""

    warmup: Warmup = Field(default_factory=Warmup, description="Warming models up.")
    image_detection: ImageDetection = Field(default_factory=ImageDetection, description="Requests with images.")
    context_limits: ContextLimits = Field(default_factory=ContextLimits, description="Long requests.")
    categorization: Mapping[Category, CategoryRule] = Field(
        default_factory=_categories, description="Who deals with each category: L, M and H, all three."
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        missing = [letter for letter in Category if letter not in self.categorization]
        if missing:
            raise ValueError(f"categorization with L, M and H; {', '.join(missing)} missing")
        return self
