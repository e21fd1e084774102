"""What orchestration costs: time, CPU, durable writes and memory, beside a provider that takes no time."""
