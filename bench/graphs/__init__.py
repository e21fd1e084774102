"""How close a graph comes to its longest chain: `python -m bench.graphs`."""
