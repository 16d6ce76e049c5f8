"""The layers of `model.layers` made fast for a platform: same values, same gradients, other programs."""
