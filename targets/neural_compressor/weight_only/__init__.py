"""INT4 weights of Hugging Face models, by Neural Compressor's methods, in the format of GPTQ folders."""
