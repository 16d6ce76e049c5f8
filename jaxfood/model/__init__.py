"""What is learned: the classifier, its layers and their fast form."""
