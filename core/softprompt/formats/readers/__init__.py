"""Files of other programs, read in a child process that may do nothing else."""
