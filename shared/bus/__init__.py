"""The bus: NATS JetStream as Segue uses it. Each module is imported by its own name; nothing connects at import."""
