"""A run on disk: its directory, configuration, classes and checkpoints."""
