"""The version of rnnx, in one place for what may not import the facade."""

__version__ = "0.1.0"
