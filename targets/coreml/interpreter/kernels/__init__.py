"""MIL op type → what it computes, in files by family; ``KERNELS`` of each is collected in the engine."""
