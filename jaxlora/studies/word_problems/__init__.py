"""The word-problem study: where reuse works, where it stops, and the dial between."""
