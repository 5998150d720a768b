"""The main job: plan, generate, score, write the result."""
