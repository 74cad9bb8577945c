"""Methods of other people: their treated images, their program, their Python function."""
