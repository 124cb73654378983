"""The health of the backends: breakers, free slots, rate limits and measured times."""
