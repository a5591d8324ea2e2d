"""The controllers. Each handles one part of the interface and posts a message when something changes."""
