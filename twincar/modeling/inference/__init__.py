"""Answers for photos: the predictor, calibrated probabilities, class activation maps, and the answer in words."""
