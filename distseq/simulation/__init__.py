"""Scheduling without training: simulate, compare, plan, measure."""
