"""Photos to tensors: decoding, transforms, augmentations and a cache."""
