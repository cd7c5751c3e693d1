"""The files in which processes share limits: which there are, what is in them, and away with them."""
