"""Network architectures, losses and weights files."""
