"""Checks, preparation and status of datasets on disk. A dataset's own folder is only read, never written to.

`verify` checks every file of a dataset, `status` lists the datasets found and the steps to get the others, and
`prepare` writes a decoded, cropped and resized copy. Real features are exported by `vfbench.pipeline.reference_stats`.
"""
