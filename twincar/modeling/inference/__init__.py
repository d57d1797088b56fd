"""Answers for photos: the predictor, calibrated probabilities, class activation maps, and sentences."""
