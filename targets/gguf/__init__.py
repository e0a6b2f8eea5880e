"""The target ``gguf``: GGUF (llama.cpp, Ollama)."""
