"""The data set that minidl carries with it, its licence, and the script that made it."""
