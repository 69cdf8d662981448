"""Word problems: graphs of operations, as symbols and in English."""

from jaxlora.tasks.word_problems.graph import Problems as Problems
from jaxlora.tasks.word_problems.graph import answers as answers
from jaxlora.tasks.word_problems.graph import blind as blind
from jaxlora.tasks.word_problems.graph import chains as chains
from jaxlora.tasks.word_problems.graph import concatenate as concatenate
from jaxlora.tasks.word_problems.graph import evaluate as evaluate
from jaxlora.tasks.word_problems.operations import Operations as Operations
from jaxlora.tasks.word_problems.operations import modular as modular
from jaxlora.tasks.word_problems.operations import plain as plain
from jaxlora.tasks.word_problems.symbols import Rows as Rows
from jaxlora.tasks.word_problems.symbols import render as render
from jaxlora.tasks.word_problems.templates import Template as Template
from jaxlora.tasks.word_problems.vocab import Vocab as Vocab
