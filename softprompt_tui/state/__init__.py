"""What the interface knows and remembers. Pure, without Textual."""
