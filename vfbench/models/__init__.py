"""The models under study, one file each."""
