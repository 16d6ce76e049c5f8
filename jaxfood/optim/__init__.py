"""How it is learned: optimizers, schedules and losses, with PyTorch's meaning."""
