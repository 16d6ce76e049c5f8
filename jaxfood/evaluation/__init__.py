"""How good trained runs are, and why: scores, mistakes, explanations."""
