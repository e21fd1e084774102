"""The contracts of the bus: every message that one process writes and another reads.

Commands are imperative and have one reader; events are facts on the log and have any number. All are
frozen; producers are strict, readers ignore fields that they do not know, so that a rolling upgrade
never poisons a queue. Imports nothing of ours. JSON Schemas: `docs/reference/schemas/`.
"""
