"""Many sequences in the rows of one batch."""
