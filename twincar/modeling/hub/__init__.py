"""Published models: folder layout, download from the Hugging Face Hub, model card."""
