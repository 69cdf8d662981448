"""Word problems: graphs of operations, as symbols and in English.

:mod:`.builder` imports TensorFlow Datasets, which takes seconds, so it is reached by
its name.
"""

from jaxlora.tasks.word_problems.english import Story as Story
from jaxlora.tasks.word_problems.english import tell as tell
from jaxlora.tasks.word_problems.graph import Problems as Problems
from jaxlora.tasks.word_problems.graph import answers as answers
from jaxlora.tasks.word_problems.graph import blind as blind
from jaxlora.tasks.word_problems.graph import chains as chains
from jaxlora.tasks.word_problems.graph import concatenate as concatenate
from jaxlora.tasks.word_problems.graph import evaluate as evaluate
from jaxlora.tasks.word_problems.operations import Operations as Operations
from jaxlora.tasks.word_problems.operations import modular as modular
from jaxlora.tasks.word_problems.operations import plain as plain
from jaxlora.tasks.word_problems.records import Config as Config
from jaxlora.tasks.word_problems.records import Record as Record
from jaxlora.tasks.word_problems.records import generate as generate
from jaxlora.tasks.word_problems.sampling import Restrict as Restrict
from jaxlora.tasks.word_problems.symbols import Rows as Rows
from jaxlora.tasks.word_problems.symbols import render as render
from jaxlora.tasks.word_problems.templates import Template as Template
from jaxlora.tasks.word_problems.vocab import Vocab as Vocab
