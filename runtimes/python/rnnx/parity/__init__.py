"""A model beside its reference, step by step."""
