"""Frozen models: the catalog, downloading, loading, and one folder per model family.

To add a family, write a folder with a class that satisfies `base.FrozenModel`, build it in `loading` and list it in
`catalog`. CONTRIBUTING.md has an example.
"""
