"""Networks: CNN and TRADES, their layout, training and files."""
