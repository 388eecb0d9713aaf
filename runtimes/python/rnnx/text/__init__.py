"""Text from a model: vocabulary, sampling, generation."""
