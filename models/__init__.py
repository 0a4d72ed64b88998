"""Architectures, problems, data and losses, imported as `distseq.models`."""

if __name__ == "models":
    raise ImportError("import distseq.models, not models")
