"""Read and write soft prompts in the file formats of other programs. Code inside such files is never run."""
