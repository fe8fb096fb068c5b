"""Classifiers trained on data sets and attacked: what Tables 1 and 2 and Figures 7 to 12 have in common.

A data set (``data.py``) and learners (``learners.py``) go in; for each of them what was found comes out
(``numbers.py``), part by part (``run.py``), and its tables and pictures are drawn from that (``result.py``).
"""
