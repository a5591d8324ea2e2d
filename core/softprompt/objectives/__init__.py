"""What a training minimises: a target and its loss, together."""
