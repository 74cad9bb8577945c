"""Scores or image pairs to numbers: one module a metric."""
