"""What can be seen of a training before it begins: its pictures, its learning rate, and which rate suits it."""
