"""What forwarding one direct model call costs, next to other gateways in front of the same provider."""
