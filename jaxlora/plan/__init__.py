"""What a program would need on devices that need not be here; see README.md."""

from jaxlora.plan.planning import Plan as Plan
from jaxlora.plan.planning import plan as plan
from jaxlora.plan.topology import describe as describe
from jaxlora.plan.work import Work as Work
from jaxlora.plan.work import model_of as model_of
