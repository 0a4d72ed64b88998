"""How a host computes a row: model, data, device and one weighted backward pass."""
