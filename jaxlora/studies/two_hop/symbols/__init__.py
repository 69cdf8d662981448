"""Symbols: small bases that are trained to compose, asked by argmax."""
