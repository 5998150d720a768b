"""Datasets as they stand on disk: where they are, what is wrong with them, what their real clips measure.

`verify` looks at every file of a dataset, `where` says what is here and how to get the rest, and `stats` keeps the real
features of a protocol for whoever does not have the dataset. Nothing is ever written into a dataset's folder.
"""
