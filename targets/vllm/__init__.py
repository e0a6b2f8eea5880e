"""The target ``vllm``: compressed-tensors checkpoint (vLLM, transformers)."""
