"""From a configuration to trained models."""
