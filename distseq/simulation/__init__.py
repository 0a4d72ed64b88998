"""Simulations without training: simulate and compare candidates, plan, and measure delays."""
