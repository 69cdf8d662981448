"""Names for people and places in text: who is new, and which places are real.

People are a given name and a family name, joined at random, so that nobody is anyone
known. Invented places are a stem and an ending; real ones are large cities that any
language model has read about.
"""

import numpy as np

_GIVEN = """
Adela Ansel Bettina Boris Carla Casper Daria Dimitri Edna Emil Farida Felix Greta
Gustav Hedda Hugo Ilse Ivo Jelena Jonas Karin Kurt Leonie Ludo Marta Milan Nadia
Nils Odette Otto Paula Pavel Qadira Quentin Rhea Rolf Selma Stefan Tilda Tomas Ulla
Umar Vera Viktor Wanda Wim Xenia Xaver Yara Yusuf Zelda Zoran Amara Bruno Celia
Dorian Elif Fabio Gilda Henrik Irma Joris Kamila Lazlo
"""
GIVEN = tuple(_GIVEN.split())
"""First names."""

_FAMILY = """
Abrellin Ambrosk Bantleford Birkvall Calderwen Corvandt Dallimore Drossett Eckarby
Elmquill Fenwarden Fjordane Galbrooke Grimsow Hallenby Hartvigg Ilvarson Inglecott
Jarnholt Jessamyne Kelvarro Krannock Lambrecht Lorimund Maddoway Merrivast Nordquell
Nyborg Oakenfell Orlovant Pemberlin Pradoski Quarrington Quistell Ravensby Rothmere
Sandoval Skarholt Talvorin Thornwick Ulverston Urbanek Valcourt Vintrell Wexmoor
Winterlund Yarborne Yelland Zabrinski Zellweg Ashgrove Brackwell Coldridge Dunsmuir
Everhart Foxbourne Glenister Hollowell Ivorsen Kestrelby Lindquist Moorcroft
Netherby Osterman
"""
FAMILY = tuple(_FAMILY.split())
"""Family names."""

_STEMS = """
Arl Brev Cael Dorn Elv Fenn Gorm Hesk Isk Jorv Kess Lum Morv Nels Ombr Prest Quill
Rusk Selk Torv Ulm Vosk Wend Yarl
"""
STEMS = tuple(_STEMS.split())
ENDINGS = ("amoor", "endale", "ista", "oport", "ulheim", "avik", "erra", "onfirth")
INVENTED = tuple(stem + ending for ending in ENDINGS for stem in STEMS)
"""Places that do not exist."""

_CITIES = """
Amsterdam Athens Auckland Baghdad Bangkok Barcelona Beijing Beirut Berlin Bogotá
Boston Brussels Budapest Cairo Caracas Casablanca Chicago Copenhagen Dakar Delhi
Dublin Edinburgh Florence Geneva Hamburg Havana Helsinki Istanbul Jakarta Jerusalem
Kyiv Lagos Lahore Lima Lisbon London Madrid Manila Melbourne Miami Milan Montreal
Moscow Mumbai Munich Nairobi Naples Osaka Oslo Paris Prague Rome Seattle Seoul
Shanghai Singapore Stockholm Sydney Tehran Tokyo Toronto Venice Vienna Warsaw
"""
CITIES = tuple(_CITIES.split())
"""Real cities."""


def people(rng: np.random.Generator, n: int) -> list[str]:
    """Returns n different full names.

    Args:
      rng: the choice.
      n: how many.

    Raises:
      ValueError: if there are fewer combinations than that.
    """
    total = len(GIVEN) * len(FAMILY)
    if n > total:
        raise ValueError(
            f"{n} people need different names, but there are {total}; lower the number "
            f"of people or of pairs."
        )
    drawn = rng.choice(total, size=n, replace=False)
    return [f"{GIVEN[i % len(GIVEN)]} {FAMILY[i // len(GIVEN)]}" for i in drawn]


def places(rng: np.random.Generator, n: int, real: bool) -> list[str]:
    """Returns n different places.

    Args:
      rng: the choice.
      n: how many.
      real: cities that exist, or invented places?

    Raises:
      ValueError: if there are fewer than that.
    """
    known = CITIES if real else INVENTED
    if n > len(known):
        kind = "real" if real else "invented"
        raise ValueError(
            f"{n} people need different places, but there are {len(known)} {kind} "
            f"ones; lower people."
        )
    return [known[i] for i in rng.choice(len(known), size=n, replace=False)]
