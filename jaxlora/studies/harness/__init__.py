"""What every study shares: folders, blocks that resume, clocks, criteria, results.

Plain functions over frozen dataclasses. A study brings its config, what it asks of
which arms, and a summary; :func:`run` does the rest. Nothing here knows a study.
"""

from jaxlora.studies.harness.criteria import Criterion as Criterion
from jaxlora.studies.harness.results import Results as Results
from jaxlora.studies.harness.run import Progress as Progress
from jaxlora.studies.harness.run import Run as Run
from jaxlora.studies.harness.run import Study as Study
from jaxlora.studies.harness.run import ask as ask
from jaxlora.studies.harness.run import run as run
from jaxlora.studies.harness.share import Share as Share
from jaxlora.studies.harness.store import Outcome as Outcome
