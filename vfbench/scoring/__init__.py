"""Scores of clips or features made elsewhere, by the rules of any protocol.

    ScoreOptions -> plan -> ScorePlan, everything found and checked -> score -> Result

The result is that of a run, with clips instead of a model: it stands in the same tables where the protocol id is equal.
"""
