"""What is learned: the classifier, and its weights in PyTorch's form."""
