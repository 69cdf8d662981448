"""Templates of our own writing in the published form; and a user's whole data."""

import os
import pathlib

import pytest

from jaxlora.tasks.gsm import template

DATA = "JAXLORA_DATA"
"""Variable that names a folder with ``gsm8k`` and ``gsm_symbolic``."""


@pytest.fixture(scope="session")
def data():
    if DATA not in os.environ:
        pytest.skip(f"{DATA} names no folder with gsm8k and gsm_symbolic")
    return pathlib.Path(os.environ[DATA])


@pytest.fixture
def parse():
    """A template from the parts of its text."""

    def build(init, question="{n, 3} cups", answer="n", solution="#### {n}", rules=()):
        lines = [question, "", "#init:", *(f"- {x}" for x in init)]
        if rules:
            lines += ["", "#conditions:", *(f"- {x}" for x in rules)]
        fields = {
            "question": "An easier one?",
            "answer": "#### 1",
            "question_annotated": "\n".join([*lines, "", f"#answer: {answer}"]),
            "answer_annotated": solution,
            "id_orig": 5,
        }
        return template.template(fields, "cups.json")

    return build
