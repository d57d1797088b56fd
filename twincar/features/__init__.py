"""Image features: photos to tensors."""
