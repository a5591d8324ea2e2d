"""The worker: a process that trains for this user's programs and outlives them. Importing this costs no torch."""
