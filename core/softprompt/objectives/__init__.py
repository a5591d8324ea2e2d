"""Objectives: what a training minimizes, as targets and a loss."""
