"""One file a metric; feature networks and helpers begin with an underscore."""
