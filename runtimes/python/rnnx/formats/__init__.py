"""Files of arrays, states and traces."""
