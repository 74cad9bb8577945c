"""Finds the faces of photographs and videos, treats them, and puts them back.

The modules in the order of the data: tree, metadata, tiles, detect, blend, video, run.
"""
