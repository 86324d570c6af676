"""Lets models judge texts: pairs in both orders, single texts by a rubric, and people's votes beside them."""
