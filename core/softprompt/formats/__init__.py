"""Read and write soft prompts in the file formats of other programs. Code inside such files is never run.

`importer` and `writers.exporter` are the entry points. `writers.programs` lists the programs and what each can load.
To add a format, write a reader for `readers.detect` and a writer for `writers.exporter`. CONTRIBUTING.md has an
example.
"""
