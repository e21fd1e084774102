"""Tables as every command draws them: no lines, a dim head."""

from collections.abc import Collection

from rich.table import Table


def plain(*columns: str, whole: Collection[str] = (), right: Collection[str] = (), footed: bool = False) -> Table:
    """Return an empty table; columns that are `whole` are never folded, those on the `right` are figures."""
    found = Table(box=None, pad_edge=False, header_style="dim", show_footer=footed)
    for name in columns:
        found.add_column(name, justify="right" if name in right else "left", no_wrap=name in whole)
    return found
