"""Adapters and checkpoints on disk."""
