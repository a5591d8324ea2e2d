"""The screens that open over the panes: dialogs, help, plot and sweep."""
