"""Training: recipes, data loading, the Lightning module and the run folder."""
