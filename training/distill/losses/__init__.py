"""Pure losses: tensors in, tensors out, shapes in the docstrings, the paper named. One file each."""
