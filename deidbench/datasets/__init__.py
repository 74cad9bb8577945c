"""Where faces come from: one module a dataset."""
