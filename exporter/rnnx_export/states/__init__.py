"""Which states a module has, found by running it."""
