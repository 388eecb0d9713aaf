"""Damaged and hostile files made from good ones: what `scripts/fuzz` feeds, and what it looks for."""
