"""Metrics by what they measure, in NumPy alone, and how sure they are. Each task's `score` picks its own."""
