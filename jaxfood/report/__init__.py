"""Pages and pictures: Markdown and plots."""
