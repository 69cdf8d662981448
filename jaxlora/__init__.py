"""Does reusing LoRA adapters compose knowledge, or only match patterns?"""

__version__ = "0.1.0"
