"""Batch prediction: folders, zip archives, Ray clusters, and the results file."""
