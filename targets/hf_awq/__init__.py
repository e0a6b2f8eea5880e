"""The target ``hf-awq``: AWQ checkpoint (TGI, vLLM, transformers)."""
