"""Evaluation: classification metrics and scores of a model on a dataset split."""
