"""What a temporal model is made of: time encodings, attention over neighbors, updates of memory and heads."""
