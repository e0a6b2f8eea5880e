"""The target ``coreml``."""
