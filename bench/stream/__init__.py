"""How long a piece of text takes from a provider to a reader: `python -m bench.stream`."""
