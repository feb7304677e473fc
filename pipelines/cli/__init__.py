"""The command `ringcx-archive`, one file for each subcommand: options and output, and nothing else."""
