"""``python -m deidbench``."""

from .cli import main

main()
