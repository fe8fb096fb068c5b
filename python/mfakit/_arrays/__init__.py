"""Arrays in and out: rows of any container as blocks, results in the same container, and the options they share."""
