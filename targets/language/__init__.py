"""What the targets share that store language models as checkpoints."""
