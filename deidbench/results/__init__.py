"""The record of a run: the only code that knows the file format."""
