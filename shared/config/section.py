"""What every part of the configuration is: frozen, strictly typed, its keys named as in the file."""

from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, JsonValue, StringConstraints
from pydantic.alias_generators import to_camel

HttpUrl = Annotated[str, StringConstraints(pattern=r"^https?://[^\s/]+\S*$")]


class Section(BaseModel):
    """A part of the file. Unknown keys are looked at before validation, see `shared.config.keys`."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False, defer_build=True)

    names_are_given: ClassVar[bool] = True
    """The file's key names are agreed, so a near miss is a typo. Where they are our own, it is only a warning."""

    @classmethod
    def shaped(cls, value: JsonValue) -> JsonValue:
        """Return what stands in the file in the shape that is validated. Overridden where other shapes are usual."""
        return value


class CamelSection(Section):
    """A part whose keys are camelCase in the file."""

    model_config = ConfigDict(alias_generator=to_camel)
