"""Recurrent networks as plain C: the compiler behind `rnnx compile`, and the provider `native`."""
