"""Data preparation: images on disk to one table."""
