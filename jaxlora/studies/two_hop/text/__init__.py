"""Text: experts of a language model, asked by ranking answers and by generation."""
