"""Frozen models: the catalog, downloading, loading, and one folder per model family.

To add a family, add a folder with a class that implements `base.FrozenModel`, build it in `loading` and list it in
`catalog`. CONTRIBUTING.md has an example.
"""
