"""Where a run's settings, numbers and pictures go beside its own files: TensorBoard, Weights & Biases, MLflow."""
