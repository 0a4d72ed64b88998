"""Model architectures with their losses, and data sets."""

if __name__ == "models":
    raise ImportError("import distseq.models, not models")
