"""What a host computes: a row, by one weighted backward pass of a model over samples of its data, on its device."""
