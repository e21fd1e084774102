"""Services of Segue, one process each."""
