"""What a classifier computes, whichever library made it."""
