"""Open-set recognition: OOD scores, thresholds and similar classes."""
