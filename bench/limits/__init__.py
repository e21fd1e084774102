"""Whether a limit holds over many executors: `python -m bench.limits`."""
