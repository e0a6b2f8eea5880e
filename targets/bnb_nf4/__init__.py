"""The target ``bnb-nf4``: NF4 checkpoint (transformers with bitsandbytes)."""
