"""Bridges to other people's tools; each imports its tool only where it is used."""
