"""The controllers. Each handles one part of the interface and posts messages about what has changed."""
