"""How good trained runs are on labelled pictures, and why they answer as they do."""
