"""Readers of GSM8K and GSM-Symbolic, whose files a user brings; see ../README.md.

The formats of a solution are in :mod:`.formats`, the templates in :mod:`.templates`.
"""

from jaxlora.tasks.gsm.formats import FORMATS as FORMATS
from jaxlora.tasks.gsm.formats import example as example
from jaxlora.tasks.gsm.formats import written as written
from jaxlora.tasks.gsm.gsm8k import read as read
from jaxlora.tasks.gsm.records import Annotation as Annotation
from jaxlora.tasks.gsm.records import Problem as Problem
from jaxlora.tasks.gsm.records import problem as problem
from jaxlora.tasks.gsm.symbolic import Instance as Instance
from jaxlora.tasks.gsm.symbolic import Spread as Spread
from jaxlora.tasks.gsm.symbolic import sets as sets
from jaxlora.tasks.gsm.symbolic import spread as spread
