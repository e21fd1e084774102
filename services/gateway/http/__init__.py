"""The gateway's HTTP surface: bodies in, answers out, errors with `detail`."""
