"""Small shapes that are cut along every axis: plans of TPUs and GPUs compile them."""

from jaxlora.lora import LoraConfig
from jaxlora.models import DecoderConfig
from jaxlora.plan import Work

CONFIG = DecoderConfig(
    vocab_size=512,
    hidden_size=256,
    num_layers=3,
    num_heads=2,
    num_kv_heads=2,
    head_dim=128,
    mlp_size=512,
    mlp="gated",
    positions="rope",
    max_length=128,
    dtype="bfloat16",
    param_dtype="bfloat16",
)
WORK = Work(config=CONFIG, experts=8, lora=LoraConfig(rank=8), batch=4, length=128)
EXPERTS = {"expert": 2, "fsdp": 2}
