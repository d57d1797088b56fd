"""The page. `page.build(predictor)` frames it; each tab has a file of its own."""
