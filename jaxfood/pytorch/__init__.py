"""Exchange with PyTorch: its files, names, weights, optimizers and training checkpoints."""
