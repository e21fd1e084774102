"""How long a video is to be. Pure."""

from collections.abc import Mapping
from typing import Final

DEFAULT_S: Final = 8.0
"""What Veo makes when it is told nothing."""


def seconds_of(settings: Mapping[str, object]) -> float:
    """Return the seconds of video that settings ask for, which is what providers bill."""
    wanted = settings.get("duration", settings.get("duration_seconds"))
    if isinstance(wanted, int | float) and not isinstance(wanted, bool) and wanted > 0:
        return float(wanted)
    return DEFAULT_S
