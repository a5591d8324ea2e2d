"""Read the files of other programs in a restricted child process."""
