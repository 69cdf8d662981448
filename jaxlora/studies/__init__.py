"""Protocols that end in rows, a figure and a verdict."""
