"""Records to pages. Imports no torch."""
