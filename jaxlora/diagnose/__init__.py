"""Will merged experts compose? A prediction before any expert is trained."""

from jaxlora.diagnose.coefficients import Shipped as Shipped
from jaxlora.diagnose.coefficients import make as make
from jaxlora.diagnose.coefficients import read as read
from jaxlora.diagnose.coefficients import shipped as shipped
from jaxlora.diagnose.features import NAMES as NAMES
from jaxlora.diagnose.features import Ask as Ask
from jaxlora.diagnose.features import Features as Features
from jaxlora.diagnose.features import matrix as matrix
from jaxlora.diagnose.predictor import Coefficients as Coefficients
from jaxlora.diagnose.predictor import brier as brier
from jaxlora.diagnose.predictor import fit as fit
from jaxlora.diagnose.predictor import held_out as held_out
from jaxlora.diagnose.predictor import probability as probability
from jaxlora.diagnose.symbols import Plan as Plan
from jaxlora.diagnose.symbols import symbol_features as symbol_features
