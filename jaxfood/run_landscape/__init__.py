"""The landscape of a run: which pictures and which checkpoint, what is measured there, and the page."""
