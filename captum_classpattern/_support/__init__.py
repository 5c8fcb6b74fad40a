"""What all parts use: checks of arguments, files, hashes, ranks of pixels, progress bars, and how
numbers and names are written."""
