"""One file an exercise: task, solution, hints, named mistakes, cases. See ../README.md."""
