"""Openers about nothing in particular, of many kinds, on which methods write: one list to develop on, one to report."""

from __future__ import annotations

DEV = (
    "One morning, the two of them",
    "Scientists have found that",
    "“I am not sure,” he answered. “",
    "What I like most about this place is",
    "Hi everyone,",
    "Before you begin, make sure that",
    "My grandmother always",
    "Yesterday evening",
    "Some people think that",
    "After dinner, we",
)
TEST = (
    "The first thing that I noticed was",
    "According to the report,",
    "“Listen,” she said, “",
    "In my opinion, the best part is",
    "Dear Anna,",
    "To get started, you need",
    "Once there was a man who",
    "Today we talked about",
    "A friend of mine once told me that",
    "I bought this last month and",
)
