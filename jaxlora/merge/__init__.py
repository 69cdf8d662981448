"""Merging: one adapter out of a library, as composable pure functions."""

from jaxlora.merge.compose import LAWS as LAWS
from jaxlora.merge.compose import Merge as Merge
from jaxlora.merge.compose import Transform as Transform
from jaxlora.merge.compose import chain as chain
from jaxlora.merge.controls import permute_sites as permute_sites
from jaxlora.merge.controls import random_like as random_like
from jaxlora.merge.linear import Reduction as Reduction
from jaxlora.merge.linear import weighted_mean as weighted_mean
from jaxlora.merge.linear import weighted_sum as weighted_sum
from jaxlora.merge.presets import names as names
from jaxlora.merge.presets import preset as preset
