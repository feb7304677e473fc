"""The command `ringcx-archive`, one file for each subcommand: what is asked and shown, and nothing else."""
