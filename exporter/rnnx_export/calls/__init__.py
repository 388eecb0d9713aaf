"""The torch calls that hide state: how each is recorded, and computed from a state that is handed in."""
