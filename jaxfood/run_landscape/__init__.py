"""The landscape of a run: which point, which pictures, what is measured, the page."""
