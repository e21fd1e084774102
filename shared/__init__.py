"""What every service shares: contracts, topology, bus, configuration, observation."""
