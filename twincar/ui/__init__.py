"""The Gradio page: `page.build(predictor)` assembles it; each tab is in a file of its own."""
