"""From answers to numbers with intervals, and from those to a verdict.

The modules are the public face, see README.md beside this file: ``statistics`` and
``answers`` load neither JAX nor a model, ``scoring`` and ``likelihood`` do.
"""
