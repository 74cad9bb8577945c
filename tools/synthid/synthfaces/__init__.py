"""Synthetic people and their photographs: shape, skin, hair, light, camera."""
