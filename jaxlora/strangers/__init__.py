"""Files of strangers: bounded JSON, limited processes, text that cannot act.

Imports nothing but the standard library, so that a limited process starts at once.
"""
