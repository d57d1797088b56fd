"""Figures: pandas tables or PIL images in, matplotlib figures out."""
