"""What all parts stand on: checks of arguments, files, and progress bars."""
