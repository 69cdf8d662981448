"""Meshes and multi-device helpers."""
