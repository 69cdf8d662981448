"""Scoring, controls, statistics and the verdict."""
