"""Commands that have a module each; ``deidbench.cli`` puts them together."""
