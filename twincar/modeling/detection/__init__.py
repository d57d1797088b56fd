"""Car detection on the features of a network."""
