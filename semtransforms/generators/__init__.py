"""From data to a generator, and back by name."""
