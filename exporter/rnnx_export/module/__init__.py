"""The user's module: its arguments, its memory, its source."""
