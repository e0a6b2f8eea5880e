"""The target ``hf-gptq``: checkpoints in the layout of GPTQ, for TGI, vLLM, ExLlamaV2 and transformers."""
