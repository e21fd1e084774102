"""How many of a model's plans are valid: `python -m bench.plans`."""
