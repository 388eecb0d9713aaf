"""Builders of models under test, shared by everything."""
