"""States that a Python loop over time carries by itself."""
