"""The library: every picture that was made and kept, with its file; found again by its recipe, its words, its place in a grid."""
