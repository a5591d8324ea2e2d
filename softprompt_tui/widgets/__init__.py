"""The panes of the main screen and the widgets inside them. Each binds its own keys and posts messages.

To add a pane, write a widget here and place it in `main_screen`; CONTRIBUTING.md has an example.
"""
