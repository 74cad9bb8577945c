"""The attackers' eyes: one module a recognizer."""
