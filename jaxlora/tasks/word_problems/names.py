"""People and things of word problems in English."""

from typing import NamedTuple

_PEOPLE = """
Ada Amir Anna Asa Bea Ben Carl Cleo Cora Dana Dara Dev Edda Eli Elsa Emil Enzo Eva
Finn Flora Gus Hana Hugo Ida Igor Ines Iris Ivan Jana Joel Jude Kai Kira Kofi Lara Leo
Lena Lior Lola Luca Maya Mei Milo Mina Nadia Nils Nora Omar Otis Pia Raj Rana Remy Rosa
Ruth Saul Sven Tara Theo Uma Vera Wim Yara Zoe
"""
PEOPLE = tuple(_PEOPLE.split())
"""Given names; in lower case they are variables of programs."""


class Scene(NamedTuple):
    """What everybody in a problem does: ``Ada walks 5 miles``."""

    does: str
    """The verb for one person."""
    do: str
    """The verb in questions."""
    units: str
    """What is counted, one word."""


SCENES = (
    Scene("has", "have", "apples"),
    Scene("has", "have", "coins"),
    Scene("owns", "own", "books"),
    Scene("sells", "sell", "tickets"),
    Scene("walks", "walk", "miles"),
    Scene("reads", "read", "pages"),
    Scene("bakes", "bake", "rolls"),
    Scene("saves", "save", "dollars"),
    Scene("picks", "pick", "pears"),
    Scene("paints", "paint", "tiles"),
    Scene("pours", "pour", "litres"),
    Scene("packs", "pack", "boxes"),
    Scene("plants", "plant", "trees"),
    Scene("waits", "wait", "minutes"),
    Scene("carries", "carry", "kilograms"),
    Scene("builds", "build", "chairs"),
)
