"""Records, networks, devices, seeded randomness, safe files: what every room above stands on."""
