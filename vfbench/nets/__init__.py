"""The networks that models share."""
