"""Tools of the tree: lock, generate."""
