"""Who compares what with what: one module a threat."""
