"""From a table, a folder or a grid to jobs; standard library alone, and no server is asked."""
