"""What regulators and data protection ask of an archive: who had access to what."""
