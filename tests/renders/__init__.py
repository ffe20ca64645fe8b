"""144 renders of heads in every condition, and the table in docs/observations.md that is made from them.

`python -m tests.renders` writes the table anew; README.md says where the pictures are from.
"""
