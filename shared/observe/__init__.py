"""What a running service shows: metrics, logs, health."""
