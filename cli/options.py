"""Options that many commands have."""

from typing import Annotated

import typer

Url = Annotated[
    str | None,
    typer.Option("--url", envvar="SEGUE_URL", help="The gateway's address; else http://127.0.0.1:<PORT, else 8000>."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print what the API answers.")]
