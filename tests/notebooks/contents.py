"""What each chapter must contain: the topics it covers and the pitfalls it turns into experiments.

A cell that teaches topic 3 of chapter 5 is tagged "topic:T5.3", one that runs pitfall 34 "pitfall:P34".
"""

TOPICS = {  # chapter: number of topics
    0: 5,
    1: 7,
    2: 7,
    3: 9,
    4: 6,
    5: 6,
    6: 5,
    7: 8,
    8: 8,
    9: 7,
    10: 6,
    11: 5,
    12: 8,
    13: 7,
    14: 8,
    15: 7,
    16: 4,
    17: 5,
    18: 7,
    19: 5,
    20: 4,
}

PITFALLS = {  # chapter: numbers of its pitfalls
    2: (18, 19, 20, 27, 88, 92),
    3: (4, 5, 13, 50, 85, 86, 89, 90),
    4: (21, 23, 72),
    5: (22, 24, 36, 37, 55),
    6: (53, 54, 56),
    7: (61, 62, 63, 64),
    8: (52, 65, 66, 67, 68, 69, 70, 71, 96),
    9: (10, 11, 12, 16, 57, 58, 59, 60, 87, 93),
    10: (74, 75, 76, 77),
    11: (25, 26, 28, 78, 79, 97),
    12: (35, 38, 39, 80, 81, 82, 95),
    13: (6, 7, 8, 9, 40),
    14: (33, 34, 41, 42),
    15: (3, 29, 30, 31, 32),
    16: (43,),
    17: (44, 45),
    18: (14, 46, 47, 48, 91),
    20: (49, 51),
}


def required_tags(chapter: int) -> set[str]:
    """The topic and pitfall tags that a chapter's cells must carry."""
    topics = {f"topic:T{chapter}.{number}" for number in range(1, TOPICS[chapter] + 1)}
    return topics | {f"pitfall:P{number}" for number in PITFALLS.get(chapter, ())}
