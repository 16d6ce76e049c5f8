"""The loop: state, step, devices, checkpoints, log."""
