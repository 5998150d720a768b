"""Models under study, one file each."""
