"""What hosts compute: rows, each by one weighted backward pass of a model over samples."""
