"""How fast this project is, measured beside what others do, on the same input in the same run."""
