"""Reference networks over characters: definition, text, training, checkpoints."""
