"""How the relations of real facts are said; see :mod:`jaxlora.tasks.two_hop.relations`.

Each is asked as a person would ask it, so that what is measured is what a model knows
and not whether it understands the question.
"""

from collections.abc import Mapping

from jaxlora.tasks.two_hop.forms import Forms

FORMS: Mapping[str, Forms] = {
    "capital": Forms(
        (
            "What is the capital of {x}?",
            "Complete the sentence: the capital of {x} is",
            "Which city is the capital of {x}?",
            "Fill in the city. The seat of government of {x} is in",
            "In an atlas, the capital of {x} is",
            "Continue: the government of {x} sits in",
            "Which city would you name as the capital of {x}?",
            "Complete the note: capital of {x}:",
        ),
        (
            "Name the capital city of {x}.",
            "In which city is the government of {x}?",
            "{x} has which city as its capital?",
        ),
        ("the capital of {x}", "the capital city of {x}"),
        "the city that is the capital of {x}",
        (
            "The capital of {x} is {y}.",
            "{y} is the capital of {x}.",
            "The government of {x} sits in {y}.",
        ),
    ),
    "language": Forms(
        (
            "What language is spoken in {x}?",
            "Complete the sentence: people in {x} speak",
            "Which language do most people in {x} speak?",
            "Fill in the language. The official language of {x} is",
            "What is the official language of {x}?",
            "Continue: to be understood in {x}, learn",
            "Which language is heard in the streets of {x}?",
            "Complete the note: language of {x}:",
        ),
        (
            "Name the language that is spoken in {x}.",
            "In which language are the newspapers of {x} written?",
            "The people of {x} speak which language?",
        ),
        ("the language of {x}", "the language spoken in {x}"),
        "the language that people speak in {x}",
        (
            "The language of {x} is {y}.",
            "People in {x} speak {y}.",
            "In {x} one hears {y}.",
        ),
    ),
    "currency": Forms(
        (
            "What is the currency of {x}?",
            "Complete the sentence: the currency of {x} is the",
            "Which currency is used in {x}?",
            "Fill in the currency. In {x}, prices are in the",
            "What money do people use in {x}?",
            "Continue: in the shops of {x} one pays with the",
            "Which money is legal tender in {x}?",
            "Complete the note: currency of {x}:",
        ),
        (
            "Name the currency that is used in {x}.",
            "With what money does one pay in {x}?",
            "{x} has which currency?",
        ),
        ("the currency of {x}", "the money used in {x}"),
        "the currency that is used in {x}",
        (
            "The currency of {x} is the {y}.",
            "People in {x} pay with the {y}.",
            "Prices in {x} are in the {y}.",
        ),
    ),
    "continent": Forms(
        (
            "On which continent is {x}?",
            "Complete the sentence: {x} is a country in",
            "What continent is {x} in?",
            "Fill in the continent. {x} is part of",
            "Which part of the world is {x} in?",
            "Continue: on a globe, look for {x} in",
            "To which continent does {x} belong?",
            "Complete the note: continent of {x}:",
        ),
        (
            "Name the continent where {x} lies.",
            "In which continent would one find {x}?",
            "{x} belongs to which continent?",
        ),
        ("the continent of {x}", "the continent that {x} is part of"),
        "the continent where {x} lies",
        (
            "{x} is in {y}.",
            "The continent of {x} is {y}.",
            "{x} is a country of {y}.",
        ),
    ),
    "located in": Forms(
        (
            "In which country is {x}?",
            "Complete the sentence: {x} is a city in",
            "What country is the city of {x} in?",
            "Fill in the country. The city of {x} is in",
            "Which country does {x} belong to?",
            "Continue: a flight to {x} is a flight to",
            "To visit {x}, to which country must one travel?",
            "Complete the note: country of the city {x}:",
        ),
        (
            "Name the country where {x} lies.",
            "In what country would one find the city of {x}?",
            "{x} is a city of which country?",
        ),
        ("the country of {x}", "the country that {x} is in"),
        "the country where {x} lies",
        (
            "{x} is a city in {y}.",
            "The city of {x} is in {y}.",
            "To see {x}, travel to {y}.",
        ),
    ),
    "country of origin": Forms(
        (
            "Which country did {x} come from?",
            "Complete the sentence: {x} was a writer from",
            "What is the home country of {x}?",
            "Fill in the country. The writer {x} came from",
            "In which country was the writer {x} born?",
            "Continue: {x}, a famous author of",
            "Of which country is {x} a famous writer?",
            "Complete the note: home country of the author {x}:",
        ),
        (
            "Name the country that the author {x} came from.",
            "From what country was the writer {x}?",
            "{x} was an author of which country?",
        ),
        ("the home country of {x}", "the country that {x} came from"),
        "the country where {x} was at home",
        (
            "{x} was a writer from {y}.",
            "The home country of {x} is {y}.",
            "{x} came from {y}.",
        ),
    ),
    "author": Forms(
        (
            "Who wrote {x}?",
            "Complete the sentence: {x} was written by",
            "Who is the author of {x}?",
            "Fill in the name. The author of {x} is",
            "Which writer wrote {x}?",
            "Continue: {x}, a famous work by",
            "From whose pen is {x}?",
            "Complete the note: author of {x}:",
        ),
        (
            "Name the writer of {x}.",
            "By which author is {x}?",
            "{x} is a work of which writer?",
        ),
        ("the author of {x}", "the writer of {x}"),
        "the person who wrote {x}",
        (
            "{x} was written by {y}.",
            "The author of {x} is {y}.",
            "{y} wrote {x}.",
        ),
    ),
}
"""By relation."""
