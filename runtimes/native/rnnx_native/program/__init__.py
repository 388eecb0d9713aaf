"""A program over arrays: its values, memory, loops and names."""
