"""Whether a file is the network, and where it is not."""
