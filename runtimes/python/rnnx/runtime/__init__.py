"""One sequence, or a batch of them, advanced step by step."""
