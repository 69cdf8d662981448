"""Training: many experts, or many gates, in one program.

``train_*`` take packed text, checkpoint and resume; ``fit_*`` and ``finetune`` take
small data sets whole; ``fit`` takes any model, loss and rows. Bases are made by
:mod:`jaxlora.train.pretrain`, gates that are measured and not trained by
:mod:`jaxlora.train.gate_data`.
"""

from jaxlora.train.any_loss import fit as fit
from jaxlora.train.any_loss import fresh as fresh
from jaxlora.train.full_batch import Steps as Steps
from jaxlora.train.full_batch import finetune as finetune
from jaxlora.train.full_batch import fit_experts as fit_experts
from jaxlora.train.full_batch import fit_gates as fit_gates
from jaxlora.train.session import Checkpoints as Checkpoints
from jaxlora.train.session import Gates as Gates
from jaxlora.train.session import Progress as Progress
from jaxlora.train.session import Trained as Trained
from jaxlora.train.session import train_experts as train_experts
from jaxlora.train.session import train_gates as train_gates
from jaxlora.train.step import Batch as Batch
from jaxlora.train.step import cross_entropy as cross_entropy
from jaxlora.train.training import Training as Training
