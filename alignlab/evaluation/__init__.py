"""Measures of replies and policies: answers, win rates, diversity, exact optima."""
