"""`python -m cli`: the same as `segue`."""

from cli.main import run

run()
