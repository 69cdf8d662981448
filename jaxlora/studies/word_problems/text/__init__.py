"""Text: experts of a language model by level and by format, asked by generation."""
