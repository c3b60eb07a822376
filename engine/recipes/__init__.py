"""What is asked for: one image's recipe, models and schedulers to choose from, and grids of recipes. Knows no other room."""
