"""Worlds and texts to train and test on; see README.md beside this file.

:mod:`.text` (tokens) and :mod:`.packing` (rows) import Flax and grain, which takes
seconds, so they are reached by their names; so is :mod:`.two_hop.builder`.
"""

from jaxlora.tasks.text_sources import Read as Read
from jaxlora.tasks.text_sources import Record as Record
from jaxlora.tasks.text_sources import read as read
from jaxlora.tasks.text_sources import record as record
