"""Data preparation: pictures on disk to one table."""
