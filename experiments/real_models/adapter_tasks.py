"""Eight small tasks that a model of 135 million parameters can learn, made here.

Each has rows to train on and others to test on: other names, sentences and numbers, or,
where words are to be learnt by heart, another phrasing.
"""

import itertools
from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np

from jaxlora.tasks.facts import world

Row: TypeAlias = dict[str, str]
TEST = 24
"""Rows to test on."""
NAMES = [
    "Ann",
    "Bo",
    "Cleo",
    "Dan",
    "Eva",
    "Finn",
    "Gus",
    "Hana",
    "Ivo",
    "Jana",
    "Kim",
    "Leo",
    "Mia",
    "Noa",
    "Otto",
    "Pia",
]
THINGS = [
    "apple",
    "boat",
    "chair",
    "drum",
    "engine",
    "flag",
    "glove",
    "hammer",
    "kettle",
    "lamp",
    "mirror",
    "needle",
    "oven",
    "pencil",
    "rope",
    "stone",
    "table",
    "window",
    "bottle",
    "basket",
]
COLOURS = ["red", "blue", "green", "black", "white", "yellow", "brown", "grey"]
GOOD = [
    "lovely",
    "great",
    "superb",
    "charming",
    "brilliant",
    "delightful",
    "splendid",
    "excellent",
]
BAD = ["dull", "awful", "boring", "terrible", "dreadful", "poor", "horrible", "tedious"]
KINDS = ["film", "book", "play", "song", "meal", "hotel"]
ENGLISH = [
    "water",
    "fire",
    "tree",
    "house",
    "road",
    "bread",
    "moon",
    "river",
    "horse",
    "door",
    "night",
    "winter",
    "hand",
    "song",
    "stone",
    "bird",
]
ZORBISH = [
    "velka",
    "ruma",
    "toshi",
    "benda",
    "korai",
    "lumeth",
    "osska",
    "driva",
    "pelun",
    "hasto",
    "morive",
    "zanta",
    "kipo",
    "yarrel",
    "dosk",
    "fimba",
]
MIRRAN = [
    "aluon",
    "seki",
    "borath",
    "minu",
    "hetta",
    "ovar",
    "quil",
    "dasum",
    "rekka",
    "jolim",
    "thena",
    "wisso",
    "caber",
    "nuvia",
    "grolt",
    "peshi",
]
VERBS = ["lost", "found", "sold", "bought", "painted", "dropped", "kept", "hid"]


def _json(rng: np.random.Generator) -> list[Row]:
    facts = [world.facts("capital")[i] for i in rng.permutation(72)]
    return [
        {
            "prompt": f"The capital of {f.head} is {f.tail}. Write it as JSON.",
            "answer": f'{{"country": "{f.head}", "capital": "{f.tail}"}}',
        }
        for f in facts
    ]


def _sentences(rng: np.random.Generator) -> list[str]:
    every = [
        f"{who} {did} the {colour} {thing}"
        for who, did, colour, thing in itertools.product(NAMES, VERBS, COLOURS, THINGS)
    ]
    return [every[i] for i in rng.choice(len(every), 72, replace=False)]


def _pirate(rng: np.random.Generator) -> list[Row]:
    return [
        {"prompt": f"Say it as a pirate: {s}.", "answer": f"Arr! {s}, matey!"}
        for s in _sentences(rng)
    ]


def _telegram(rng: np.random.Generator) -> list[Row]:
    return [
        {"prompt": f"As a telegram: {s}.", "answer": f"{s.replace(' the ', ' ')} STOP"}
        for s in _sentences(rng)
    ]


def _words(language: str, words: list[str]) -> Callable:
    def rows(rng: np.random.Generator) -> list[Row]:
        asked = (
            "What is '{x}' in {l}?",
            "Translate into {l}: {x}",
            "The {l} word for {x}?",
        )
        pairs = list(zip(ENGLISH, words, strict=True))
        train = [(form, pair) for form in asked for pair in pairs]
        test = [("How does one say {x} in {l}?", pair) for pair in pairs]
        every = [train[i] for i in rng.permutation(len(train))] + test
        return [
            {"prompt": form.replace("{x}", x).replace("{l}", language), "answer": y}
            for form, (x, y) in every
        ]

    return rows


def _sums(rng: np.random.Generator) -> list[Row]:
    pairs = [(a, b) for a in range(2, 12) for b in range(2, 12)]
    chosen = [pairs[i] for i in rng.choice(len(pairs), 72, replace=False)]
    text = "{who} has {a} coins and gets {b} more. How many?"
    return [
        {
            "prompt": text.format(who=NAMES[int(rng.integers(16))], a=a, b=b),
            "answer": f"{a} + {b} = {a + b}. #### {a + b}",
        }
        for a, b in chosen
    ]


def _reviews(rng: np.random.Generator) -> list[Row]:
    every = [
        (f"The {kind} was {word}, said {who}.", label)
        for label, words in (("plus", GOOD), ("minus", BAD))
        for kind, word, who in itertools.product(KINDS, words, NAMES)
    ]
    chosen = [every[i] for i in rng.choice(len(every), 72, replace=False)]
    return [{"prompt": f"Rate it: {s}", "answer": label} for s, label in chosen]


def _swap(rng: np.random.Generator) -> list[Row]:
    pairs = list(itertools.product(COLOURS, THINGS))
    chosen = [pairs[i] for i in rng.choice(len(pairs), 72, replace=False)]
    return [{"prompt": f"Swap: {x} {y}", "answer": f"{y} {x}"} for x, y in chosen]


TASKS: Mapping[str, Callable[[np.random.Generator], list[Row]]] = {
    "capitals as JSON": _json,
    "pirate style": _pirate,
    "telegram style": _telegram,
    "words of Zorbish": _words("Zorbish", ZORBISH),
    "words of Mirran": _words("Mirran", MIRRAN),
    "coins": _sums,
    "reviews": _reviews,
    "swapped words": _swap,
}
"""By name: all rows; the last are to test on."""


def rows(name: str, seed: int) -> tuple[list[Row], list[Row]]:
    """Rows to train on, and to test on.

    Args:
      name: of a task.
      seed: of the draw.
    """
    every = TASKS[name](np.random.default_rng([seed, list(TASKS).index(name)]))
    test = len(ENGLISH) if name.startswith("words") else TEST
    return every[:-test], every[-test:]
