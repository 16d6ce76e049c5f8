"""What trained runs answer for pictures: probabilities, and the submission."""
