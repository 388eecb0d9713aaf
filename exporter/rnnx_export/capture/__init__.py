"""A module as a graph of torch operators."""
