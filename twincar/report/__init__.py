"""The report of a model (tables, figures, page) and the comparison of the recipes."""
