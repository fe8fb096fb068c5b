"""The kinds of models under attack: what an attack needs of each."""
