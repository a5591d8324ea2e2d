"""One job, from its specification to a saved entry, wherever it runs."""
