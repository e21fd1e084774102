"""What every service shares: contracts, topology, bus, configuration, observation."""

from functools import cache
from importlib import metadata


@cache
def version() -> str:
    """Return the version of this installation, `0+source` when it runs from a tree that is not installed."""
    try:
        return metadata.version("segue")
    except metadata.PackageNotFoundError:
        return "0+source"
